"""What one training stage leaves in the journal: its health, what it started from, and why it failed."""

from __future__ import annotations

from typing import Literal

from rdagent_ft.recipe.calibration import CalibrationFactor
from rdagent_ft.recipe.forecast import Throughput
from rdagent_ft.recipe.learnt import FailedTry
from rdagent_ft.recipe.stages import AnyTrainedStage, StageKind
from rdagent_ft.values import Frozen


class Failure(Frozen):
    """Why something failed: dotted class, who is to blame, the evidence, and what to do.

    `failure_class` e.g. `train.diverged`; blame `candidate` counts against the hypothesis,
    `environment` and `user` do not.
    """

    failure_class: str
    blame: Literal["candidate", "environment", "user"]
    message: str
    fix: str | None = None


class TrainingHealth(Frozen):
    """What the metrics of a training say; `verdict` is decided by code.

    `warnings` are sentences about a training that ended well and still looks odd.
    """

    verdict: Literal["ok", "diverged", "flat", "no_metrics"]
    n_steps: int
    first_loss: float | None = None
    last_loss: float | None = None
    min_loss: float | None = None
    max_grad_norm: float | None = None
    message: str = ""
    warnings: tuple[str, ...] = ()


class KeptStep(Frozen):
    """Which weights a training with held-out rows left.

    Attributes:
        step, n_steps: the optimizer step whose weights were kept, and how many were done.
        best_step, best_value: the best step by `metric`; None when it never was a number.
        metric: what was measured on the held-out rows, by the trainer's name.
        n_held_out: how many rows were held out.
    """

    step: int
    n_steps: int
    best_step: int | None
    metric: str
    best_value: float | None
    n_held_out: int


class StageOutput(Frozen):
    """One stage of a recipe's chain: what it started from and what it left.

    Attributes:
        number: place in the chain, from 1.
        kind: the stage's kind.
        folder: `stages/2-dpo` inside the loop's (or seed's) folder, relative to the run directory.
        parent: number of the stage whose weights it started from; None means the base model.
        reference: what the loss compares with: `base` or `stage 2`; None for losses without one.
        weights_kind: `adapter` on the weights it started from, `model`, or `reward` for a reward model.
        weights, weights_sha256: folder relative to the run directory, and its hash.
        n_rows: rows of its data file.
        metrics: the method's own measures, first and last logged value.
        kept: which checkpoint the weights are; None when no row was held out.
        repairs: neutral fixes that were made after a failure, in words.
        tries: what failed before, and the last one if it failed too.
        speed: tokens a second that this training did, for forecasts; None where they are not counted.
    """

    number: int
    kind: StageKind
    folder: str
    parent: int | None = None
    reference: str | None = None
    attempts: int = 0
    weights_kind: Literal["adapter", "model", "reward"] | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    health: TrainingHealth | None = None
    train_s: float = 0.0
    n_tokens: int | None = None
    n_rows: int = 0
    metrics: dict[str, tuple[float, float]] = {}
    kept: KeptStep | None = None
    repairs: tuple[str, ...] = ()
    tries: tuple[FailedTry, ...] = ()
    speed: Throughput | None = None
    failure: Failure | None = None


class StageProbe(Frozen):
    """Three real steps of a stage on its longest rows, before its training (rung V5).

    Attributes:
        number, kind: the stage: its place in the chain, from 1, and its kind.
        why: what could not be told without it.
        peak_gib: peak memory of one device.
        longest_row_tokens: of the rows that were trained.
        factor: measured peak / forecast.
        speed: tokens a second.
        repairs: neutral fixes that made it fit, in words.
        stage: the stage with these fixes; None without any.
        tries: what ran out of memory before.
        failure: why the stage cannot be trained on this device.
        seconds: of all its jobs.
    """

    number: int
    kind: StageKind
    why: str
    peak_gib: float | None = None
    longest_row_tokens: int | None = None
    factor: CalibrationFactor | None = None
    speed: Throughput | None = None
    repairs: tuple[str, ...] = ()
    stage: AnyTrainedStage | None = None
    tries: tuple[FailedTry, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0

    def words(self) -> str:
        """Return the probe as one line."""
        found = [f"{self.seconds:.0f} s, because {self.why}"]
        if self.factor is not None:
            found.append(self.factor.words())
        if self.speed is not None:
            found.append(f"{self.speed.tokens_per_s:,.0f} tokens a second")
        found += [f"fits with {words}" if self.failure is None else words for words in self.repairs[-1:]]
        if self.failure is not None:
            found.append(f"failed with {self.failure.failure_class}")
        return f"probe of stage {self.number} ({self.kind}): {'; '.join(found)}"
