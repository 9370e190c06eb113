#!/usr/bin/env bash
# SFT, merge, DPO, merge, serve, score: on a tiny model and generated data, minutes on a CPU.
# FT_SERVE_PYTHON (a Python with vLLM) serves the models; without it they are scored in jobs.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
export FT_EXECUTOR=local FT_ALLOW_CPU=1 HF_HUB_OFFLINE=1
export FT_SERVING=off
test -z "${FT_SERVE_PYTHON:-}" || export FT_SERVING=vllm
here=examples/pipelines/sft-dpo-ifeval
work="$FT_FILE_PATH/pipelines/sft-dpo-ifeval"
chat="$FT_FILE_PATH/datasets/examples/chat"
pairs="$FT_FILE_PATH/datasets/examples/pairs"

# 1. A tiny model; instructions, preference pairs and items that can be checked.
python examples/pipelines/tiny_model.py --out "$FT_FILE_PATH/models/examples/tiny"
python examples/pipelines/make_data.py instructions --rows 500 --out "$work/chat.jsonl"
python examples/pipelines/make_data.py pairs --rows 200 --out "$work/pairs.jsonl"
python examples/pipelines/make_data.py items --rows 24 --out "$work/items.jsonl"

# 2. Shuffle with seed 42 before sampling; train and validation pairs as 0.95 to 0.05.
rdagent-ft data prepare "$work/chat.jsonl" --limit 400 --seed 42 --split 0.95/0.05 --out "$chat"
rdagent-ft data prepare "$work/pairs.jsonl" --format pairs --seed 42 --split 0.95/0.05 --out "$pairs"

# 3. SFT, merge, DPO, merge; base and tuned are scored on val, the sealed test split and the items.
export FT_BENCHMARK_DATASETS="[\"$work/items.jsonl:exact_match\"]"
rdagent-ft run --dataset examples/chat --preferences examples/pairs --model examples/tiny \
    --recipe "$here/smoke.yaml" --loop_n 1 --json > "$work/run.json"
run="$(python examples/pipelines/where.py "$work/run.json")"
model="$(python examples/pipelines/where.py "$work/run.json" --stage 4)"

# 4. IFEval, where its items are on this machine. The suite test asks five of them, and five of GSM8K.
if test -f "$FT_FILE_PATH/benchmarks/ifeval/input_data.jsonl" && test -f "$FT_FILE_PATH/benchmarks/gsm8k/test.jsonl"; then
    rdagent-ft benchmark "$model" --base "$FT_FILE_PATH/models/examples/tiny" --suite test \
        --out "$work/benchmarks"
else
    echo "IFEval is skipped: its items or those of GSM8K are not below $FT_FILE_PATH/benchmarks (docs/benchmarks.md)"
fi
