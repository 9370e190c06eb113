# pyright: basic
"""The SFT training job: `python -m rdagent_ft.training.sft_job --config config.yaml`.

Runs in the train environment with the job's folder as working directory; see `sft_run`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rdagent_ft.training.sft_run import JobPaths, run_sft


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description="Supervised fine-tuning with TRL.")
    parser.add_argument("--config", type=Path, required=True, help="TRL config (YAML)")
    parser.add_argument("--metrics", type=Path, default=Path("metrics.jsonl"))
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    parser.add_argument("--prompts-check", type=Path, default=None, help="JSON lines {messages, text}")
    args = parser.parse_args()
    run_sft(args.config, JobPaths(args.metrics, args.result, args.failure, args.prompts_check))


if __name__ == "__main__":
    main()
