#!/usr/bin/env bash
# SFT, merge, DPO, merge, serve with vLLM, IFEval: Qwen/Qwen2.5-1.5B on one machine with eight GPUs.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
here=examples/pipelines/sft-dpo-ifeval
work="$FT_FILE_PATH/pipelines/sft-dpo-ifeval"
chat="$FT_FILE_PATH/datasets/benchmark/ultrachat"
pairs="$FT_FILE_PATH/datasets/benchmark/ultrafeedback"
model=Qwen/Qwen2.5-1.5B
mkdir -p "$work"

# 1. Data. Each hub dataset has other splits too, so the wanted files are fetched by name.
hf download HuggingFaceH4/ultrachat_200k --repo-type dataset --include 'data/train_sft-*' --local-dir "$work/ultrachat"
hf download HuggingFaceH4/ultrafeedback_binarized --repo-type dataset --include 'data/train_prefs-*' \
    --local-dir "$work/ultrafeedback"
hf download "$model" --local-dir "$FT_FILE_PATH/models/$model"

# 2. Shuffled with seed 42 before sampling; 61,135 pairs give about 58,000 and 3,000.
rdagent-ft data prepare "$work/ultrachat" --limit 50000 --seed 42 --split 0.95/0.05 --out "$chat"
rdagent-ft data prepare "$work/ultrafeedback" --format pairs --seed 42 --split 0.95/0.05 --out "$pairs"
rdagent-ft data decontaminate "$chat/train.jsonl" --against ifeval

# 3. Train. All GPUs of the machine are used; the trainings are one after the other.
rdagent-ft validate "$here/recipe.yaml" --deep
rdagent-ft run --dataset benchmark/ultrachat --preferences benchmark/ultrafeedback --model "$model" \
    --recipe "$here/recipe.yaml" --benchmark ifeval --loop_n 1 --json > "$work/run.json"
run="$(python examples/pipelines/where.py "$work/run.json")"

# 4. Serve with vLLM and score on IFEval with guards, beside the base model.
#    A server of your own: vllm serve "$run/export/merged"; then --endpoint http://127.0.0.1:8000/v1
rdagent-ft benchmark "$run/export/merged" --base "$FT_FILE_PATH/models/$model" --suite core --backend server \
    --out "$work/benchmarks"
