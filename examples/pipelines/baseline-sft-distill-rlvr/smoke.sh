#!/usr/bin/env bash
# Baseline, then SFT, distillation and RLVR, then comparisons: on tiny models, minutes on a CPU.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
export FT_EXECUTOR=local FT_ALLOW_CPU=1 HF_HUB_OFFLINE=1
here=examples/pipelines/baseline-sft-distill-rlvr
work="$FT_FILE_PATH/pipelines/workflow"
data="$FT_FILE_PATH/datasets/examples/sums"

# 1. A tiny model, and training data.
python examples/pipelines/tiny_model.py --out "$FT_FILE_PATH/models/examples/tiny"
python examples/pipelines/make_data.py sums --rows 500 --out "$work/sums.jsonl"
rdagent-ft data audit "$work/sums.jsonl"
rdagent-ft data prepare "$work/sums.jsonl" --seed 42 --split 0.95/0.05 --out "$data"

# 2. Baseline and SFT. The other runs use the baseline's answers again.
dir_of() { python examples/pipelines/where.py "$work/$1.json"; }
rdagent-ft run --dataset examples/sums --model examples/tiny --recipe "$here/smoke-sft.yaml" --loop_n 1 --json \
    > "$work/sft.json"

# 3. Distillation from what SFT made, and RLVR.
rm -rf "$FT_FILE_PATH/models/examples/tiny-teacher"
rdagent-ft merge --base "$FT_FILE_PATH/models/examples/tiny" \
    --adapter "$(python examples/pipelines/where.py "$work/sft.json" --stage 1)" --out "$FT_FILE_PATH/models/examples/tiny-teacher"
rdagent-ft run --dataset examples/sums --model examples/tiny --recipe "$here/smoke-distill.yaml" --loop_n 1 --json \
    > "$work/distill.json"
rdagent-ft run --dataset examples/sums --model examples/tiny --recipe "$here/smoke-rlvr.yaml" --loop_n 1 --json \
    > "$work/rlvr.json"

# 4. Compare each with the baseline, and RLVR with SFT, on the same items.
for method in sft distill rlvr; do
    rdagent-ft compare "$(dir_of sft)/baseline/eval" "$(dir_of "$method")/loops/000/eval" --json \
        > "$work/comparison-$method.json"
done
rdagent-ft compare "$(dir_of sft)/loops/000/eval" "$(dir_of rlvr)/loops/000/eval" --target heldout/val
