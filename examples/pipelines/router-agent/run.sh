#!/usr/bin/env bash
# The router agent at real size: Llama 3.1 8B on one GPU of 80 GB, jobs in Docker.
# TRACES is your file of routing traces (prompt, completion; other names: --columns). Without it, as many
# requests as the document's set has are generated.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
here=examples/pipelines/router-agent
work="$FT_FILE_PATH/pipelines/router-agent"
data="$FT_FILE_PATH/datasets/agents/router-agent"
model="${MODEL:-meta-llama/Llama-3.1-8B-Instruct}"   # gated: accept its licence and set HF_TOKEN
traces="${TRACES:-$work/traces.jsonl}"

# 1. Prepare: shuffled with a seed, every plan checked, 8,189 rows give 6,962, 818 and 409.
test -n "${TRACES:-}" || python examples/pipelines/make_data.py router --rows 8189 --out "$traces"
rdagent-ft data audit "$traces"
rdagent-ft data prepare "$traces" --schema "$here/plan.schema.json" --seed 42 --split 0.85/0.10/0.05 --out "$data"
python examples/pipelines/as_benchmark.py "$data/test.jsonl" --out "$work/router-test.jsonl"

# 2. Train and measure. recipe-qlora.yaml is for Gemma 3 27B and Qwen 3 32B.
rdagent-ft validate "$here/recipe.yaml"
export FT_BENCHMARK_DATASETS="[\"$work/router-test.jsonl:json_match\"]"
rdagent-ft run --dataset agents/router-agent --model "$model" --recipe "$here/recipe.yaml" --loop_n 1 \
    --json > "$work/run.json"

# 3. Hand on: adapter and card; --dry-run sends nothing.
run="$(python examples/pipelines/where.py "$work/run.json")"
rdagent-ft export "$(basename "$run")" --format adapter
rdagent-ft publish "$(basename "$run")" --repo "${REPO:-your-org/router-llama31-peft}" --dry-run
