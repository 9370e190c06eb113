# pyright: basic
"""Group-relative policy optimisation through TRL's `GRPOTrainer`: what it adds to `stage_run`.

What scores a completion comes from `rewards.json`, not from the config: the declarations of
`recipe/rewards.py` in their order. A reward model is a folder that the trainer loads itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rdagent_ft.training.job_files import fail
from rdagent_ft.training.rewards.check_job import sound_rewards
from rdagent_ft.training.rewards.reward import RewardError, RewardFunction
from rdagent_ft.training.stage_run import Method, Setup

RESERVED = ("completion", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""Column names that the trainer passes to reward functions itself."""


def _config() -> type:
    from trl.trainer.grpo_config import GRPOConfig

    return GRPOConfig


def _build(setup: Setup) -> Any:
    from trl.trainer.grpo_trainer import GRPOTrainer

    _check_rows(setup)
    functions, weights = _rewards(setup)
    setup.training_args.reward_weights = weights
    return GRPOTrainer(reward_funcs=functions, **setup.common())


def _rewards(setup: Setup) -> tuple[list[Any], list[float]]:
    """Return what TRL takes as reward functions, and their weights, in the order of the file.

    Ends the job when a reward is broken: gold answers must reach the top and wrong ones must not.
    """
    path = setup.paths.rewards
    if path is None:
        raise SystemExit("a grpo training needs --rewards FILE")
    functions = iter(sound_rewards(path, setup.rows, failure=setup.paths.failure))
    found: list[Any] = []
    weights: list[float] = []
    for declared in json.loads(path.read_text(encoding="utf-8")):
        if declared["kind"] == "reward_model":
            found.append(str(_reward_model(setup)))
            weights.append(float(declared.get("weight", 1.0)))
        else:
            function = next(functions)
            found.append(_guarded(function, setup.paths.failure))
            weights.append(function.weight)
    return found, weights


def _guarded(function: RewardFunction, failure: Path) -> Callable[..., list[float | None]]:
    """Return the function such that a broken reward ends the job with its class, not with a traceback."""

    def scored(**columns: Any) -> list[float | None]:
        try:
            return function(**columns)
        except RewardError as error:
            fail(failure, "reward.broken", f"`{function.name}`: {error}")

    scored.__name__ = function.name
    return scored


def _reward_model(setup: Setup) -> Path:
    folder = setup.paths.reward_model
    if folder is None:
        raise SystemExit("the rewards ask a reward model: give its folder as --reward-model")
    return folder


def _check_rows(setup: Setup) -> None:
    """End the job when a column's name is taken, or when the prompts do not fill one step."""
    for name in sorted(set().union(*setup.rows).intersection(RESERVED)):
        message = f"the column `{name}` has a name that reward functions get from the trainer"
        fail(setup.paths.failure, "data.columns", message)
    args = setup.training_args
    refuse_too_few(setup, args.generation_batch_size // args.num_generations)


def refuse_too_few(setup: Setup, n_needed: int) -> None:
    """End the job when there are fewer prompts than one step asks: the sampler drops incomplete steps."""
    n_rows = len(setup.rows)
    if n_rows < n_needed:
        message = f"{n_rows} prompts are fewer than the {n_needed} of one step"
        fail(setup.paths.failure, "data.too_few", message, n_rows=n_rows, n_needed=n_needed)


def _check(trainer: Any, setup: Setup) -> dict[str, Any]:
    return {"n_rows_trained": len(trainer.train_dataset)}


METHOD = Method("grpo", _config, (), ("prompt",), _build, _check)
