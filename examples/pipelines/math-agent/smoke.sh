#!/usr/bin/env bash
# The math agent on a tiny model and generated word problems: minutes on a CPU, nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
export FT_EXECUTOR=local FT_ALLOW_CPU=1 HF_HUB_OFFLINE=1
here=examples/pipelines/math-agent
work="$FT_FILE_PATH/pipelines/math-agent"
data="$FT_FILE_PATH/datasets/examples/math-agent"

# 1. A tiny model; problems with steps and a number; train and validation as 9 to 1.
python examples/pipelines/tiny_model.py --out "$FT_FILE_PATH/models/examples/tiny"
python examples/pipelines/make_data.py sums --rows 500 --out "$work/problems.jsonl"
rdagent-ft data prepare "$work/problems.jsonl" --seed 42 --split 0.9/0.1 --out "$data"

# 2. The validation part becomes a benchmark. Public suites are reported where their files are (see README).
python examples/pipelines/as_benchmark.py "$data/validation.jsonl" --out "$work/math-validation.jsonl"

# 3. Base, training, val, claim on sealed items, export.
export FT_BENCHMARK_DATASETS="[\"$work/math-validation.jsonl:numeric_match\"]"
rdagent-ft run --dataset examples/math-agent --model examples/tiny --recipe "$here/smoke.yaml" \
    --loop_n 1 --json > "$work/run.json"
