"""Command of the probe job and what it leaves: the core's side, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import Frozen

Positive = Annotated[float, Field(gt=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class ProbeResult(Frozen):
    """What three steps on the longest rows took.

    Attributes:
        stage, device: what was probed and where.
        n_steps, n_rows: steps done and rows kept for them.
        n_tokens: tokens of all steps, prompts included; None where the trainer does not count them.
        longest_row_tokens: of the rows; None where the trainer tokenises later.
        peak_gib: peak memory of one device, with all that the process holds.
        before_gib: on CPU, resident memory before the model was loaded; None on a GPU.
        step_s: seconds of a step, the first one left out.
        tokens_per_s: None when tokens are not counted.
    """

    stage: Literal["sft", "dpo", "kto", "reward", "grpo", "distill"]
    device: Literal["cpu", "cuda"]
    n_steps: Count
    n_rows: Count
    n_tokens: Count | None
    longest_row_tokens: Count | None
    peak_gib: Positive
    before_gib: Positive | None
    step_s: Positive
    tokens_per_s: Positive | None


def probe_argv(
    kind: str, config: Path, *, rewards: Path | None = None, reward_model: Path | None = None
) -> tuple[str, ...]:
    """Return the probe's command for one stage's trainer config."""
    argv = ["python", "-m", "rdagent_ft.training.probe_job", "--kind", kind, "--config", str(config)]
    for name, path in (("--rewards", rewards), ("--reward-model", reward_model)):
        argv += [name, str(path)] if path is not None else []
    return tuple(argv)


def read_probe_result(out_dir: Path) -> ProbeResult:
    """Return the probe's `result.json`. Raises `JobError` when it is missing or not usable."""
    values = read_json_file(out_dir, "result.json", 1 << 20)
    try:
        return ProbeResult.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise JobError(f"`result.json` of the probe is not usable: {key}: {first['msg']}") from None
