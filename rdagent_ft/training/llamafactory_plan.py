"""Commands of the LLaMA-Factory jobs, and in which environment they run.

What the jobs leave has the shapes of `plan.py`: `read_train_result`, `read_merge_result`, `read_failure`.
"""

from __future__ import annotations

from pathlib import Path

_MODULE = "rdagent_ft.training"
IMAGE = "llamafactory"
"""The image, and the environment of a job without one, that holds the trainer."""


def llamafactory_argv(config: Path, *, prompts_check: Path | None = None) -> tuple[str, ...]:
    """Return a training's command; it writes into its working directory.

    Args:
        config: what `render_llamafactory` gave.
        prompts_check: rendered prompts (`messages`, `text`) to compare with the trainer's rendering;
            without it rows of the training file are compared with the model's own template.
    """
    argv = ("python", "-m", f"{_MODULE}.llamafactory_job", "--config", str(config))
    return argv if prompts_check is None else (*argv, "--prompts-check", str(prompts_check))


def llamafactory_export_argv(config: Path) -> tuple[str, ...]:
    """Return the command that merges an adapter; `config` is what `render_export` gave."""
    return ("python", "-m", f"{_MODULE}.llamafactory_export_job", "--config", str(config))
