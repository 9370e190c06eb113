"""Loss curves from what a training job wrote: hostile files, read with bounds, thinned for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import iter_json_lines

METRICS_NAME = "metrics.jsonl"
MAX_BYTES = 16 << 20
MAX_LINES = 200_000
MAX_LINE_BYTES = 64 << 10
MAX_POINTS = 240


def loss_curve(run_dir: Path, folder: str) -> tuple[list[tuple[float, float]], str | None]:
    """Return (step, loss) pairs of an attempt's folder, at most `MAX_POINTS`, or why there are none.

    A resumed training appends, so the last line of a step counts. Lines without a usable `step` and
    `loss` are skipped (summaries, "nan").
    """
    name = f"{folder}/{METRICS_NAME}"
    rows = iter_json_lines(
        run_dir, name, MAX_BYTES, MAX_LINES, max_line_bytes=MAX_LINE_BYTES, allow_cut_end=True
    )
    try:
        by_step = dict(pair for _, row in rows if (pair := _pair(row)) is not None)
    except JobError as error:
        return [], error.message
    return (thinned(sorted(by_step.items()), MAX_POINTS), None) if by_step else ([], "no losses were logged")


def thinned(curve: Sequence[tuple[float, float]], n_points: int) -> list[tuple[float, float]]:
    """Return at most `n_points` of the curve: first, last, and each bucket's lowest and highest loss."""
    if len(curve) <= n_points:
        return list(curve)
    n_buckets = max(1, (n_points - 2) // 2)
    inner = curve[1:-1]
    kept: list[tuple[float, float]] = [curve[0]]
    for index in range(n_buckets):
        bucket = inner[index * len(inner) // n_buckets : (index + 1) * len(inner) // n_buckets]
        if bucket:
            ends = {min(bucket, key=lambda pair: pair[1]), max(bucket, key=lambda pair: pair[1])}
            kept += sorted(ends)
    return [*kept, curve[-1]]


def _pair(row: dict[str, Any]) -> tuple[float, float] | None:
    step, loss = _number(row.get("step")), _number(row.get("loss"))
    return None if step is None or loss is None else (step, loss)


def _number(value: Any) -> float | None:
    """Return a finite number of drawable size, else None. A bool is no number here."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -1e15 < value < 1e15 else None
