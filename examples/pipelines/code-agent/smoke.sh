#!/usr/bin/env bash
# The code agent on a tiny model and generated tasks: minutes on a CPU, nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
export FT_EXECUTOR=local FT_ALLOW_CPU=1 HF_HUB_OFFLINE=1
here="$PWD/examples/pipelines/code-agent"
work="$FT_FILE_PATH/pipelines/code-agent"
data="$FT_FILE_PATH/datasets/examples/code-agent"

# 1. A tiny model; tasks with instruction, output, code, entry_point and testcase.
python examples/pipelines/tiny_model.py --out "$FT_FILE_PATH/models/examples/tiny"
python examples/pipelines/make_data.py code --rows 400 --out "$work/tasks.jsonl"

# 2. A `tests` column, and a proof: answers pass their own tests, and no other answer does. Every program runs
#    in a process of its own without network, with little memory and time.
python "$here/with_tests.py" "$work/tasks.jsonl" --out "$work/tested.jsonl" --check "$work/check.jsonl"
check="$(realpath "$work/check.jsonl")"
mkdir -p "$work/check" && (cd "$work/check" \
    && python -m rdagent_ft.training.rewards.check_job --rewards "$here/rewards.json" --data "$check")

# 3. Parts, base, training, val, claim on sealed items, export.
rdagent-ft data prepare "$work/tested.jsonl" --seed 42 --split 0.9/0.1 --out "$data"
rdagent-ft run --dataset examples/code-agent --model examples/tiny --recipe "$here/smoke.yaml" \
    --loop_n 1 --json > "$work/run.json"
