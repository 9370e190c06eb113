"""What this run has measured of its machine: speeds and memory factors, and the time that is left.

Read from the journal, so that a resumed run forecasts as the uninterrupted one would.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.recipe.calibration import CalibrationFactor
from rdagent_ft.recipe.forecast import Throughput, measured_throughput
from rdagent_ft.recipe.model_shape import ModelShape
from rdagent_ft.recipe.stages import AnyTrainedStage
from rdagent_ft.reporting.records import CodeOutput, TrainOutput
from rdagent_ft.reporting.stage_records import StageProbe
from rdagent_ft.values import Frozen


class Measured(Frozen):
    """Facts of earlier loops, the newest last.

    Attributes:
        speeds: of probes and trainings.
        factors: measured peak / forecast, of probes.
        tokens_per_row: of the newest loop's mean training row; None before the first one.
    """

    speeds: tuple[Throughput, ...] = ()
    factors: tuple[CalibrationFactor, ...] = ()
    tokens_per_row: float | None = None

    def words(self) -> tuple[str, ...]:
        """Return the newest measurement of every kind as sentences for planners."""
        lines = {
            f"speed {speed.stage_kind}": f"measured: {speed.stage_kind} trains "
            f"{speed.tokens_per_s:,.0f} tokens a second" + self._row_words(speed)
            for speed in self.speeds
        }
        lines |= {
            f"memory {factor.stage_kind} {factor.adapter}": f"measured: {factor.words()}"
            for factor in self.factors
        }
        return tuple(lines.values())

    def _row_words(self, speed: Throughput) -> str:
        if self.tokens_per_row is None or speed.stage_kind != "sft":
            return ""
        seconds = 1000 * self.tokens_per_row / speed.tokens_per_s
        return f"; one epoch of 1,000 rows takes {seconds:,.0f} s"


def measured(ctx: RunContext) -> Measured:
    """Return what the finished loops measured."""
    speeds, factors = list[Throughput](), list[CalibrationFactor]()
    tokens_per_row: float | None = None
    for loop in ctx.journal.finished_loops():
        coded = ctx.journal.output(loop, "code", CodeOutput)
        trained = ctx.journal.output(loop, "train", TrainOutput)
        if coded is not None:
            tokens_per_row = coded.tokens_per_row or tokens_per_row
            speeds += probe_speeds(coded.probes)
            factors += probe_factors(coded.probes)
        if trained is not None:
            speeds += [stage.speed for stage in trained.stages if stage.speed is not None]
    return Measured(speeds=tuple(speeds), factors=tuple(factors), tokens_per_row=tokens_per_row)


def probe_speeds(probes: tuple[StageProbe, ...]) -> tuple[Throughput, ...]:
    """Return the speeds that probes measured."""
    return tuple(probe.speed for probe in probes if probe.speed is not None)


def probe_factors(probes: tuple[StageProbe, ...]) -> tuple[CalibrationFactor, ...]:
    """Return the memory factors that probes measured."""
    return tuple(probe.factor for probe in probes if probe.factor is not None)


def remaining_s(ctx: RunContext) -> float | None:
    """Return the seconds that training may still take: without the closing's and one scoring's time."""
    left = ctx.clock.left_s()
    return None if left is None else max(0.0, left - ctx.reserve_s - ctx.baseline.eval_s)


def training_speed(
    stage: AnyTrainedStage, shape: ModelShape, *, n_tokens: int | None, n_steps: int, seconds: float
) -> Throughput | None:
    """Return the speed of a whole training; None where its tokens were not counted."""
    if not n_tokens or not n_steps or seconds <= 0:
        return None
    tokens_per_visit = n_tokens / (n_steps * stage.effective_batch)
    n_sequences = 2 if stage.kind in ("dpo", "reward") else 1
    return measured_throughput(
        stage, shape, n_tokens=n_tokens, seconds=seconds, tokens_per_row=tokens_per_visit / n_sequences
    )
