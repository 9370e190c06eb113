"""Priors: what is known of hyper-parameters before any trial, as data with scope and source.

A prior is a value, a range or a grid for a scope (method, adapter, model size, data size), in our
own words. Sources that disagree stand side by side. Planners see at most fifteen matching ones and
cite ids; a cited id must resolve here. Failure signatures and the model table are elsewhere.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, model_validator

from rdagent_ft.values import Frozen

Confidence = Literal["measured", "recipe", "default", "opinion"]
_FOLDER = Path(__file__).resolve().parent / "priors"
_CONFIDENCE_ORDER: dict[Confidence, int] = {"measured": 0, "recipe": 1, "default": 2, "opinion": 3}


class Scope(Frozen):
    """Where a prior holds; None means everywhere.

    Attributes:
        method: sft, dpo, kto, grpo, rloo, reward, distill.
        adapter: lora, qlora or full.
        family: model families by name; only shown, never matched.
        size_b: smallest and largest base model in billions of weights.
        n_rows: smallest and largest number of training rows.
    """

    method: tuple[str, ...] | None = None
    adapter: tuple[str, ...] | None = None
    family: tuple[str, ...] | None = None
    size_b: tuple[float, float] | None = None
    n_rows: tuple[int, int] | None = None


class Prior(Frozen):
    """One fact. Exactly one of `value`, `range` and `grid` is set.

    Attributes:
        id: short name that proposals cite.
        claim: one sentence in our own words.
        applies_to: the scope.
        path: recipe path that the fact is about, when there is one.
        value, range, grid: the number, its bounds, or values from best to worst.
        source: where it was read, and when.
        confidence: measured, recipe (a production config), default (of a tool) or opinion.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    claim: str = Field(min_length=10, max_length=300)
    applies_to: Scope = Scope()
    path: str | None = None
    value: Any = None
    range: tuple[float, float] | None = None
    grid: tuple[Any, ...] | None = None
    source: str = Field(min_length=3)
    confidence: Confidence

    @model_validator(mode="after")
    def _one_form(self) -> Prior:
        if sum(part is not None for part in (self.value, self.range, self.grid)) != 1:
            raise ValueError(f"prior {self.id!r} must have exactly one of value, range and grid")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError(f"prior {self.id!r}: the range is upside down")
        return self

    @property
    def specificity(self) -> int:
        """How many sides of the scope are given."""
        scope = self.applies_to
        return sum(part is not None for part in (scope.method, scope.adapter, scope.size_b, scope.n_rows))

    def render(self) -> str:
        """Return the fact as one line for a prompt: `[id] claim (value; confidence; source)`."""
        if self.range is not None:
            shown = f"{self.range[0]:g} to {self.range[1]:g}"
        else:
            shown = (
                str(self.value)
                if self.value is not None
                else ", ".join(str(item) for item in self.grid or ())
            )
        return f"[{self.id}] {self.claim} ({shown}; {self.confidence}; {self.source})"


@lru_cache(maxsize=1)
def load_priors() -> tuple[Prior, ...]:
    """Return every prior, in file and entry order. Ids are unique; a double one is a `ValueError`."""
    priors: list[Prior] = []
    seen: set[str] = set()
    for path in sorted(_FOLDER.glob("*.yaml")):
        for entry in cast("list[dict[str, Any]]", yaml.safe_load(path.read_text(encoding="utf-8"))):
            prior = Prior.model_validate(entry)
            if prior.id in seen:
                raise ValueError(f"prior id {prior.id!r} stands twice (again in {path.name})")
            seen.add(prior.id)
            priors.append(prior)
    return tuple(priors)


def prior_ids() -> frozenset[str]:
    """Return all ids that a proposal may cite."""
    return frozenset(prior.id for prior in load_priors())


def matching_priors(
    *, method: str, adapter: str | None, n_params: int | None, n_rows: int | None, limit: int = 15
) -> tuple[Prior, ...]:
    """Return the priors whose scope fits, most specific first, then by confidence, at most `limit`.

    An unknown `adapter`, `n_params` or `n_rows` (None) excludes nothing on that side.
    """
    fitting = [prior for prior in load_priors() if _fits(prior.applies_to, method, adapter, n_params, n_rows)]
    order = {prior.id: place for place, prior in enumerate(load_priors())}
    fitting.sort(key=lambda p: (-p.specificity, _CONFIDENCE_ORDER[p.confidence], order[p.id]))
    return tuple(fitting[:limit])


def _fits(scope: Scope, method: str, adapter: str | None, n_params: int | None, n_rows: int | None) -> bool:
    if scope.method is not None and method not in scope.method:
        return False
    if scope.adapter is not None and adapter is not None and adapter not in scope.adapter:
        return False
    if scope.size_b is not None and n_params is not None:
        low, high = scope.size_b
        if not low <= n_params / 1e9 <= high:
            return False
    if scope.n_rows is not None and n_rows is not None:
        return scope.n_rows[0] <= n_rows <= scope.n_rows[1]
    return True
