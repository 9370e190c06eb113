"""One dimension of the search space: a path, its range or choices, and the prior behind it."""

from __future__ import annotations

from typing import Any, Literal

from rdagent_ft.values import Frozen


class Dimension(Frozen):
    """One thing that a planner may vary.

    Attributes:
        path: dotted path for `apply_diff`.
        kind: `float` and `int` use `low`, `high` and `log`; `categorical` uses `choices`.
        low, high: inclusive range.
        log: whether the scale is logarithmic.
        choices: allowed values as JSON (lists for `data.exclude_sources`).
        centre: value in the recipe that is being changed; inside the range or among the choices.
        prior_id: the knowledge-base entry that the range rests on.
    """

    path: str
    kind: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    centre: Any = None
    prior_id: str


def choice(path: str, choices: tuple[Any, ...], centre: Any, prior_id: str) -> Dimension:
    """Return a categorical dimension whose choices hold the centre."""
    listed = choices if centre in choices else (*choices, centre)
    return Dimension(path=path, kind="categorical", choices=listed, centre=centre, prior_id=prior_id)


def floats(
    path: str, low: float, high: float, centre: float, prior_id: str, *, log: bool = False
) -> Dimension:
    """Return a dimension of numbers whose range holds the centre."""
    return Dimension(
        path=path, kind="float", low=min(low, centre), high=max(high, centre), centre=centre, log=log,
        prior_id=prior_id,
    )  # fmt: skip
