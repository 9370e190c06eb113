"""Axes: linear scales and round tick values. Pure arithmetic, no drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from a domain to pixels; values outside the domain land on its edge."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`, rounded to 0.1. Raises `ValueError` for NaN or infinity."""
        if not math.isfinite(value):
            raise ValueError("only finite values can be drawn")
        # Halves first: the span of two very large values of opposite sign overflows otherwise.
        half_span = self.high / 2 - self.low / 2
        if half_span <= 0.0:
            return round((self.start_px + self.end_px) / 2, 1)
        inside = min(max(value, self.low), self.high)
        share = min(1.0, (inside / 2 - self.low / 2) / half_span)
        return round(self.start_px + share * (self.end_px - self.start_px), 1)


def nice_ticks(low: float, high: float, n_target: int = 5) -> list[float]:
    """Return round values (1, 2, 2.5 or 5 x 10^k apart) inside `low..high`, about `n_target` of them.

    Between 1 and 2 x `n_target` values; a single one when the range is empty.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else [0.0]
    raw = high / n_target - low / n_target
    magnitude = 10.0 ** math.floor(math.log10(raw)) if raw >= 1e-300 else 0.0
    if magnitude == 0.0:
        return [low]
    step = next(
        (factor * magnitude for factor in (1, 2, 2.5, 5) if factor * magnitude >= raw), 10 * magnitude
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [index * step for index in range(first, min(last, first + 2 * n_target - 1) + 1)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside or [low]


def tick_label(value: float, step: float) -> str:
    """Return a tick's text with as many digits as the step needs."""
    if value != 0.0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.1e}"
    digits = 0 if step <= 0 else max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
    if step > 0 and abs(step / 10.0**-digits - 2.5) < 1e-6:
        digits += 1
    return f"{value:.{digits}f}"


def padded(values: Iterable[float], *, least_span: float, share: float = 0.06) -> tuple[float, float]:
    """Return the range of the finite `values` with a margin, at least `least_span` wide."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, least_span
    low, high = min(finite), max(finite)
    missing = max(0.0, least_span - (high - low))
    low, high = low - missing / 2, high + missing / 2
    margin = share * (high - low)
    return low - margin, high + margin
