"""Tries the rewards before training: `python -m rdagent_ft.training.rewards.check_job --rewards F --data F`.

Standard library, and what the rewards themselves need. Leaves `result.json` (how many rows, which rewards)
or `failure.json` with class `reward.broken`, `env.missing_dep` or `config.bad_value`, and exit code 3.
The GRPO job asks `sound_rewards` itself before it loads a model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import RdagentFtError
from rdagent_ft.training.job_files import fail, write_json_file
from rdagent_ft.training.rewards.check import MAX_ROWS, check_rewards
from rdagent_ft.training.rewards.load import load_rewards, reward_model_weight
from rdagent_ft.training.rewards.reward import RewardFunction

FAILURE = Path("failure.json")


def main() -> None:
    """Check the rewards on the data, and say so in the working directory."""
    parser = argparse.ArgumentParser(description="Try rewards on gold and wrong answers.")
    parser.add_argument("--rewards", type=Path, required=True, help="JSON list of reward declarations")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with prompt, gold, ...")
    parser.add_argument("--max-rows", type=int, default=MAX_ROWS)
    args = parser.parse_args()
    rows = read_all_rows(args.data)
    rewards = sound_rewards(args.rewards, rows, max_rows=args.max_rows)
    names = [reward.name for reward in rewards]
    write_json_file(Path("result.json"), {"n_rows": len(rows), "rewards": names})


def sound_rewards(
    path: Path, rows: Sequence[dict[str, Any]], *, max_rows: int = MAX_ROWS, failure: Path = FAILURE
) -> list[RewardFunction]:
    """Return the rewards of `rewards.json` once they are proven on the rows.

    Ends the job with `failure` written when they cannot be made, or are broken. Beside a reward model,
    which is not tried here, the sum of the others says nothing and is not judged.
    """
    try:
        rewards = load_rewards(path)
        complete = reward_model_weight(path) is None
    except RdagentFtError as error:
        found = error.problems[0].problem_class if error.problems else "reward.broken"
        fail(failure, found, error.render(), problems=[problem.as_json() for problem in error.problems])
    broken = check_rewards(rewards, rows, max_rows=max_rows, complete=complete)
    problems = [problem.as_problem() for problem in broken]
    if problems:
        message = "; ".join(problem.render() for problem in problems)
        fail(failure, "reward.broken", message, problems=[problem.as_json() for problem in problems])
    return rewards


def read_all_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file with all their columns. Raises `ValueError`."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{path}:{number} holds no JSON object")
                rows.append(cast("dict[str, Any]", row))
    return rows


if __name__ == "__main__":
    main()
