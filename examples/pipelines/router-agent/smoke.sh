#!/usr/bin/env bash
# The router agent on a tiny model and generated requests: minutes on a CPU, nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
export FT_FILE_PATH="${FT_FILE_PATH:-finetune_files}"
export FT_EXECUTOR=local FT_ALLOW_CPU=1 HF_HUB_OFFLINE=1
here=examples/pipelines/router-agent
work="$FT_FILE_PATH/pipelines/router-agent"
data="$FT_FILE_PATH/datasets/examples/router-agent"

# 1. A tiny model, and requests with their plans.
python examples/pipelines/tiny_model.py --out "$FT_FILE_PATH/models/examples/tiny"
python examples/pipelines/make_data.py router --rows 1000 --out "$work/traces.jsonl"

# 2. Smoke preparation: 200 rows, every plan checked against the schema, with think blocks from a column, which the
#    schema leaves out of the answer. Then all rows as 0.85/0.10/0.05.
rdagent-ft data prepare "$work/traces.jsonl" --schema "$here/plan.schema.json" --limit 200 --seed 42 \
    --think wrap --think-column rationale --out "$work/thinking"
rdagent-ft data prepare "$work/traces.jsonl" --schema "$here/plan.schema.json" --seed 42 \
    --split 0.85/0.10/0.05 --out "$data"

# 3. The test part becomes a benchmark: its rows are in no training.
python examples/pipelines/as_benchmark.py "$data/test.jsonl" --out "$work/router-test.jsonl"

# 4. Base, training, val, claim on sealed items, export.
export FT_BENCHMARK_DATASETS="[\"$work/router-test.jsonl:json_match\"]"
rdagent-ft run --dataset examples/router-agent --model examples/tiny --recipe "$here/smoke.yaml" \
    --loop_n 1 --json > "$work/run.json"

# 5. The adapter with its card, and what publishing would send: of an accepted model only.
run="$(python examples/pipelines/where.py "$work/run.json")"
if test -d "$run/export/merged"; then
    rdagent-ft export "$(basename "$run")" --format adapter
    rdagent-ft publish "$(basename "$run")" --repo example-org/router-agent --dry-run
else
    echo "no candidate was accepted, so there is nothing to export: see $run/report.html"
fi
