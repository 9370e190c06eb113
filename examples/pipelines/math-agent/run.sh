#!/usr/bin/env bash
# The math agent at real size: Qwen 3 32B in 4 bits on one GPU of 80 GB, jobs in Docker.
# MATHX is a file or folder of MathX-5M (problem, generated_solution). Without it, 10,000 problems are generated.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
here=examples/pipelines/math-agent
work="$FT_FILE_PATH/pipelines/math-agent"
data="$FT_FILE_PATH/datasets/agents/math-agent"
model="${MODEL:-Qwen/Qwen3-32B}"
suites="${SUITES:-gsm8k,math,svamp,mawps,mathqa,aqua}"   # docs/benchmarks.md: where their files go

# 1. 10,000 rows: 9,000 to train, 1,000 to validate; none that repeats an item of a suite.
test -n "${MATHX:-}" || python examples/pipelines/make_data.py math --rows 10000 --out "$work/problems.jsonl"
rdagent-ft data prepare "${MATHX:-$work/problems.jsonl}" --limit 10000 --seed 42 --split 0.9/0.1 --out "$data"
rdagent-ft data decontaminate "$data/train.jsonl" --against gsm8k --against math --against svamp

# 2. Train; score base and tuned on all suites beside the held-out rows.
rdagent-ft validate "$here/recipe.yaml"
rdagent-ft run --dataset agents/math-agent --model "$model" --recipe "$here/recipe.yaml" --benchmark "$suites" \
    --loop_n 1 --json > "$work/run.json"

# 3. Hand on.
run="$(python examples/pipelines/where.py "$work/run.json")"
rdagent-ft export "$(basename "$run")" --format adapter
rdagent-ft publish "$(basename "$run")" --repo "${REPO:-your-org/math-qwen3-32b-peft}" --dry-run
