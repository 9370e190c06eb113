"""Makes memory estimates of one kind of training exact by a measured peak.

A factor is measured for (model, stage kind, adapter) and applied to later estimates of the same three.
It is bounded: beyond the bounds the estimate and the measurement are not of the same thing, and the
factor says so instead of hiding it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from rdagent_ft.errors import UserError
from rdagent_ft.recipe.memory import AdapterName, MemoryEstimate
from rdagent_ft.recipe.stages import StageKind
from rdagent_ft.values import Frozen

LOW, HIGH = 0.5, 2.0


class CalibrationFactor(Frozen):
    """Measured peak / estimate.

    Attributes:
        model: the base model's identity (its hash or name), as the caller records it.
        stage_kind, adapter: what was trained.
        factor: what estimates are multiplied by, within `LOW` and `HIGH`.
        estimate_gib, measured_gib: what it was made from.
        is_bounded: whether the true ratio lies outside the bounds.
    """

    model: str
    stage_kind: StageKind
    adapter: AdapterName
    factor: float
    estimate_gib: float
    measured_gib: float
    is_bounded: bool = False

    def words(self) -> str:
        """Return the factor as one line."""
        line = (
            f"{self.stage_kind} with {self.adapter}: measured {self.measured_gib:.2f} GiB, forecast "
            f"{self.estimate_gib:.2f} GiB, factor {self.factor:.2f}"
        )
        return f"{line} (held within {LOW:g} and {HIGH:g})" if self.is_bounded else line


def calibrate(estimate: MemoryEstimate, measured_peak_gib: float, *, model: str) -> CalibrationFactor:
    """Return the factor of an estimate whose training had this peak on one device.

    An estimate that is calibrated already is taken back to its own numbers first. Raises `UserError`
    for a peak that is not a positive number.
    """
    if not math.isfinite(measured_peak_gib) or measured_peak_gib <= 0:
        raise UserError(f"a measured peak of {measured_peak_gib!r} GiB is not usable")
    own = estimate.total_gib / (estimate.calibration or 1.0)
    ratio = measured_peak_gib / own
    factor = min(max(ratio, LOW), HIGH)
    return CalibrationFactor(
        model=model,
        stage_kind=estimate.stage_kind,
        adapter=estimate.adapter,
        factor=round(factor, 4),
        estimate_gib=round(own, 3),
        measured_gib=round(measured_peak_gib, 3),
        is_bounded=factor != ratio,
    )


def calibrated(
    estimate: MemoryEstimate, factors: Iterable[CalibrationFactor], *, model: str
) -> MemoryEstimate:
    """Return the estimate times the last factor of the same model, kind and adapter; else as it is."""
    if estimate.calibration is not None:
        return estimate
    same = [
        factor.factor
        for factor in factors
        if (factor.model, factor.stage_kind, factor.adapter) == (model, estimate.stage_kind, estimate.adapter)
    ]
    if not same:
        return estimate
    factor = same[-1]
    return estimate.model_copy(
        update={
            "total_gib": round(estimate.total_gib * factor, 3),
            "parts": {name: round(size * factor, 4) for name, size in estimate.parts.items()},
            "calibration": factor,
        }
    )
