# pyright: basic
"""The training job of every stage: `python -m rdagent_ft.training.stage_job --kind dpo --config config.yaml`.

Runs in the train environment with the job's folder as working directory; see `stage_run`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rdagent_ft.training import distill_run, dpo_run, grpo_run, kto_run, reward_run, sft_run
from rdagent_ft.training.stage_run import JobPaths, run_stage

METHODS = {
    module.METHOD.kind: module.METHOD
    for module in (sft_run, dpo_run, kto_run, reward_run, grpo_run, distill_run)
}


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description="One stage of a recipe, trained with TRL.")
    parser.add_argument("--kind", choices=sorted(METHODS), required=True)
    parser.add_argument("--config", type=Path, required=True, help="TRL config (YAML)")
    parser.add_argument("--metrics", type=Path, default=Path("metrics.jsonl"))
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    parser.add_argument("--prompts-check", type=Path, default=None, help="JSON lines {messages, text}")
    parser.add_argument("--rewards", type=Path, default=None, help="grpo: declarations (JSON list)")
    parser.add_argument("--reward-model", type=Path, default=None, help="grpo: folder of a reward model")
    parser.add_argument("--tokens", type=Path, default=None, help="sft: folder of stored tokens")
    args = parser.parse_args()
    if args.tokens is not None and args.kind != "sft":
        parser.error("--tokens belongs to --kind sft")
    if (args.kind == "grpo") != (args.rewards is not None):
        parser.error("--rewards belongs to --kind grpo, which needs it")
    if args.reward_model is not None and args.kind != "grpo":
        parser.error("--reward-model belongs to --kind grpo")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")
    paths = JobPaths(
        metrics=args.metrics,
        result=args.result,
        failure=args.failure,
        prompts_check=args.prompts_check,
        rewards=args.rewards,
        reward_model=args.reward_model,
        tokens=args.tokens,
    )
    run_stage(METHODS[args.kind], args.config, paths)


if __name__ == "__main__":
    main()
