#!/usr/bin/env bash
# The code agent at real size: Llama 3.1 8B Instruct on one GPU, jobs in Docker.
# RECIPE=recipe-qlora.yaml holds the base in 4 bits; RECIPE=recipe-rlvr.yaml adds rewards from running tests.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
here="$PWD/examples/pipelines/code-agent"
work="$FT_FILE_PATH/pipelines/code-agent"
data="$FT_FILE_PATH/datasets/agents/code-agent"
dataset="${DATASET:-OpenCoder-LLM/opc-sft-stage2:educational_instruct}"   # parquet: pip install 'rdagent-ft[parquet]'
model="${MODEL:-meta-llama/Llama-3.1-8B-Instruct}"   # gated: accept its licence and set HF_TOKEN
recipe="${RECIPE:-recipe.yaml}"

# 1. Data with tests; answers are run against their own tests before anything is trained.
python "$here/with_tests.py" "$dataset" --out "$work/tested.jsonl" --check "$work/check.jsonl"
check="$(realpath "$work/check.jsonl")"
mkdir -p "$work/check" && (cd "$work/check" \
    && python -m rdagent_ft.training.rewards.check_job --rewards "$here/rewards.json" --data "$check")
rdagent-ft data prepare "$work/tested.jsonl" --seed 42 --split 0.9/0.1 --out "$data"
rdagent-ft data decontaminate "$data/train.jsonl" --against humaneval --against mbpp

# 2. Train; HumanEval and MBPP run what the models write in containers.
rdagent-ft validate "$here/$recipe"
rdagent-ft run --dataset agents/code-agent --model "$model" --recipe "$here/$recipe" \
    --benchmark humaneval,mbpp --loop_n 1 --json > "$work/run.json"

# 3. Hand on.
run="$(python examples/pipelines/where.py "$work/run.json")"
rdagent-ft export "$(basename "$run")" --format all
rdagent-ft publish "$(basename "$run")" --repo "${REPO:-your-org/code-llama31-peft}" --dry-run
