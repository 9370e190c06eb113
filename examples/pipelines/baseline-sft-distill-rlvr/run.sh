#!/usr/bin/env bash
# Baseline, SFT, distillation, RLVR and comparisons for Qwen3-8B on one GPU of 80 GB, jobs in Docker.
# DATA is your file ({"prompt", "response", "grade", "topic_tags"}). Without it: the train part of GSM8K.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
here=examples/pipelines/baseline-sft-distill-rlvr
work="$FT_FILE_PATH/pipelines/workflow"
data="$FT_FILE_PATH/datasets/workflow/train"
student=Qwen/Qwen3-8B
teacher=Qwen/Qwen3-14B
mkdir -p "$work"
hf download "$student" --local-dir "$FT_FILE_PATH/models/$student"
hf download "$teacher" --local-dir "$FT_FILE_PATH/models/$teacher"

# 1. Baseline: standard is the suite core, comprehensive is full. Files of the benchmarks: docs/benchmarks.md.
rdagent-ft benchmark "$FT_FILE_PATH/models/$student" --no-base --suite standard --backend server \
    --out "$work/baseline"

# 2. Training data, without rows that repeat an item of the suites.
test -n "${DATA:-}" || hf download openai/gsm8k --repo-type dataset --include 'main/train-*' --local-dir "$work/gsm8k"
rdagent-ft data audit "${DATA:-$work/gsm8k}"
rdagent-ft data prepare "${DATA:-$work/gsm8k}" --seed 42 --split 0.95/0.05 --out "$data"
rdagent-ft data decontaminate "$data/train.jsonl" --against gsm8k --against math

# 3. Three trainings, and each model on the same suite. The base is scored once in $work/benchmarks.
for method in sft distill rlvr; do
    rdagent-ft run --dataset workflow/train --model "$student" --recipe "$here/$method.yaml" --loop_n 1 \
        --json > "$work/$method.json"
    run="$(python examples/pipelines/where.py "$work/$method.json")"
    rdagent-ft benchmark "$run/export/merged" --base "$FT_FILE_PATH/models/$student" --suite standard \
        --backend server --out "$work/benchmarks-$method"
done

# 4. Compare: `benchmark` has compared each with the base; here RLVR with SFT.
rdagent-ft compare "$(ls -d "$work"/benchmarks-sft/fine-tuned/* | tail -n 1)" \
    "$(ls -d "$work"/benchmarks-rlvr/fine-tuned/* | tail -n 1)" --target gsm8k
