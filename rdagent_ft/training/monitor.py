"""What the metrics of a training say about its health, decided by code after the job has ended.

The job's own guard stops most diverging runs early; this is the verdict that counts, because a
trainer ends with exit code 0 whatever happened to the weights. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import iter_json_lines
from rdagent_ft.reporting.stage_records import TrainingHealth
from rdagent_ft.training.stage_health import (
    LOSS_KINDS,
    WATCHED,
    PaceWatch,
    SignalWatch,
    TrainedKind,
    Values,
    flat_margin,
    stage_warnings,
)

MAX_BYTES = 64 << 20
MAX_LINES = 400_000
MAX_LINE_BYTES = 64 << 10
MAX_STEP = 10**12
BLOW_UP_FACTOR, BLOW_UP_OFFSET = 1.5, 2.0
BAD_NORMS_IN_A_ROW = 5
DEAD_LOSS_SHARE = 0.9
FLAT_RELATIVE_RANGE = 1e-4
MIN_LOGS_FOR_FLAT = 5


class _Point(NamedTuple):
    step: int
    loss: float
    grad_norm: float | None
    work: float
    elapsed_s: float | None
    watched: tuple[float | None, ...]


def read_health(metrics_path: Path, kind: TrainedKind = "sft") -> TrainingHealth:
    """Return the health of the training that wrote a `metrics.jsonl`. Never raises on bad content.

    Verdicts: `diverged` for a NaN or infinite loss, a NaN gradient norm at the end, beside a loss of
    0 or five times in a row, gradients that vanished without the loss having fallen (not for `grpo`),
    or an end loss (mean of the last three) above 1.5 x first + 2 (kinds whose loss shows progress);
    `flat` when nothing was ever learnt: all gradient norms 0, a loss that never moved by more than
    1e-4 of itself, a margin that never moved by 1e-5 (preference kinds), or rewards that never
    differed or scored nothing (`grpo`); `no_metrics` without a usable line; else `ok`, with the warnings of
    `stage_health`. Thresholds: `training/` facts of axolotl's guide, and own runs with lr 1e6.
    """
    by_step: dict[int, _Point] = {}
    lines = iter_json_lines(
        metrics_path.parent,
        metrics_path.name,
        MAX_BYTES,
        MAX_LINES,
        max_line_bytes=MAX_LINE_BYTES,
        allow_cut_end=True,
    )
    try:
        for _, line in lines:
            point = _point(line, WATCHED[kind])
            if point is not None:
                by_step[point.step] = point  # a resumed training repeats steps: the last line counts
    except JobError as error:
        return TrainingHealth(verdict="no_metrics", n_steps=0, message=error.message)
    points = [by_step[step] for step in sorted(by_step)]
    if not points:
        return TrainingHealth(verdict="no_metrics", n_steps=0, message="no line with step and loss")
    finite = [point.loss for point in points if math.isfinite(point.loss)]
    norms = [p.grad_norm for p in points if p.grad_norm is not None and math.isfinite(p.grad_norm)]
    logs = [dict(zip(WATCHED[kind], point.watched, strict=True)) for point in points if WATCHED[kind]]
    diverged = _divergence(points, kind)
    flat = None if diverged else _flatness(points, kind, logs)
    return TrainingHealth(
        verdict="diverged" if diverged else "flat" if flat else "ok",
        n_steps=points[-1].step,
        first_loss=_finite_or_none(points[0].loss),
        last_loss=_finite_or_none(points[-1].loss),
        min_loss=min(finite, default=None),
        max_grad_norm=max(norms, default=None),
        message=diverged or flat or "",
        warnings=() if diverged or flat else (*stage_warnings(kind, logs), *_pace_warnings(points)),
    )


def _divergence(points: Sequence[_Point], kind: TrainedKind) -> str | None:
    in_a_row = 0
    for point in points:
        if not math.isfinite(point.loss):
            return f"the loss is {point.loss} at step {point.step}"
        bad_norm = point.grad_norm is not None and not math.isfinite(point.grad_norm)
        in_a_row = in_a_row + 1 if bad_norm else 0
        last = point is points[-1]
        if bad_norm and (point.loss == 0.0 or last or in_a_row >= BAD_NORMS_IN_A_ROW):
            return f"the gradient norm is {point.grad_norm} at step {point.step}"
    first = points[0].loss
    last_losses = [point.loss for point in points[1:][-3:]]
    end = sum(last_losses) / len(last_losses) if last_losses else first
    if kind in LOSS_KINDS and end > BLOW_UP_FACTOR * first + BLOW_UP_OFFSET:
        return f"the loss rose from {first:.3g} to {end:.3g}"
    moved = any(point.grad_norm for point in points)
    if kind != "grpo" and moved and points[-1].grad_norm == 0.0 and end > DEAD_LOSS_SHARE * first:
        return f"the gradients vanished with the loss at {end:.3g} (first {first:.3g})"
    return None


def _flatness(points: Sequence[_Point], kind: TrainedKind, logs: Sequence[Values]) -> str | None:
    if kind == "grpo" and (silence := _silence(logs)) is not None:
        return silence
    norms = [point.grad_norm for point in points if point.grad_norm is not None]
    if norms and not any(norms):
        return "all gradient norms are 0: no weight was trained"
    if kind == "grpo":
        return None
    if kind not in LOSS_KINDS:
        return flat_margin(kind, logs)
    losses = [point.loss for point in points]
    spread = max(losses) - min(losses)
    if len(points) >= MIN_LOGS_FOR_FLAT and spread <= FLAT_RELATIVE_RANGE * max(abs(losses[0]), 1e-9):
        return f"the loss stayed at {losses[0]:.4g}"
    return None


def _silence(logs: Sequence[Values]) -> str | None:
    watch = SignalWatch()
    found = [finding for log in logs if (finding := watch.see(log)) is not None]
    if (end := watch.end()) is not None:
        found.append(end)
    said = (one.message for one in found if one.failure_class in {"train.no_signal", "reward.no_score"})
    return next(said, None)


def _pace_warnings(points: Sequence[_Point]) -> tuple[str, ...]:
    watch = PaceWatch()
    for point in points:
        found = None if point.elapsed_s is None else watch.see(point.work, point.elapsed_s)
        if found is not None:
            return (found.message,)
    return ()


def _point(line: dict[str, Any], watched: tuple[str, ...]) -> _Point | None:
    step, loss = line.get("step"), _number(line.get("loss"))
    if type(step) is not int or not 0 <= step <= MAX_STEP or loss is None:
        return None
    n_tokens, elapsed_s = _number(line.get("n_tokens")), _number(line.get("elapsed_s"))
    return _Point(
        step,
        loss,
        _number(line.get("grad_norm")),
        work=step if n_tokens is None else n_tokens,
        elapsed_s=None if elapsed_s is None else _finite_or_none(elapsed_s),
        watched=tuple(_number(line.get(name)) for name in watched),
    )


def _number(value: Any) -> float | None:
    """Return a metric as a float; the job writes "nan" and "inf" as strings."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
