"""A first gain may be of any size: it is hardly shrunken, and the sign decides."""

from __future__ import annotations

import pytest

from rdagent_ft.evaluation.posterior import gain_over_base


def test_a_large_first_gain_is_believed() -> None:
    posterior = gain_over_base(0.8, 0.03)
    assert posterior.mean == pytest.approx(0.8, abs=0.01)
    assert posterior.p_positive > 0.999


def test_the_sign_decides() -> None:
    assert gain_over_base(-0.01, 0.02).mean < 0 < gain_over_base(0.01, 0.02).mean


def test_what_is_no_measurement_is_refused() -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        gain_over_base(float("nan"), 0.1)
