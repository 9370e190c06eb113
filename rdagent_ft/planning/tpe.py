"""The planner without an LLM: readable steps around the priors first, then Optuna's TPE.

The first proposals change one to three dimensions of the parent recipe, drawn around its values in
the ranges of the knowledge base, so that each loop teaches something. From `N_STARTUP` trials on, TPE
proposes all dimensions from the run's own scores. Moves too small to be a hypothesis are left out. No
study is stored: it is rebuilt from the history each time.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from rdagent_ft.planning.history import value_at
from rdagent_ft.planning.port import PlanContext, Proposal, Trial
from rdagent_ft.planning.sample import SMALL_MOVE, centred_value, first_new_proposal, move_share, space_of
from rdagent_ft.recipe.space import Dimension
from rdagent_ft.values import canonical_json

N_STARTUP = 6
"""Trials before TPE has enough points to split into good and bad."""

N_CHANGES = (1, 2, 3)
N_CHANGES_WEIGHTS = (5, 3, 2)
WEIGHTS = {
    "learning_rate": 3.0,
    "epochs": 2.0,
    "exclude_sources": 2.0,
    "dedupe": 2.0,
    "effective_batch": 0.5,
    "warmup_ratio": 0.5,
    "weight_decay": 0.5,
}
"""How often a dimension is picked early on; others 1. Learning rate and amount of training decide
most of an SFT run, then the data; decay hardly matters, and a batch should move with the rate (priors
sft-lora-lr-grid, sft-steps, sft-weight-decay, sft-lora-batch). Opinion, not measured here."""

UNTRIED_BONUS = 2.0


class TpePlanner:
    """Proposes by priors, then by tree-structured Parzen estimators over the run's own scores."""

    name = "tpe"

    def ask(self, context: PlanContext) -> Proposal:
        """Return the next recipe, fully determined by `context`. See `first_new_proposal` for errors."""
        dimensions = space_of(context)
        if len(context.trials) < N_STARTUP:
            rng = random.Random(f"tpe:{context.seed}:{context.loop}")
            return first_new_proposal(
                context, dimensions, lambda _: _step(context, dimensions, rng), self.name
            )
        study, distributions = _study(context, dimensions)

        def draw(_: int) -> dict[str, Any]:
            params = study.ask(distributions).params
            return _moves(context, dimensions, params)

        return first_new_proposal(context, dimensions, draw, self.name)


def _step(context: PlanContext, dimensions: tuple[Dimension, ...], rng: random.Random) -> dict[str, Any]:
    """Return new values for one to three dimensions; those that no trial moved are picked more often."""
    weights = {d.path: _weight(d, context) for d in dimensions}
    n_changes = min(rng.choices(N_CHANGES, N_CHANGES_WEIGHTS)[0], len(dimensions))
    picked: list[Dimension] = []
    while len(picked) < n_changes:
        rest = [d for d in dimensions if d not in picked]
        picked += rng.choices(rest, [weights[d.path] for d in rest])
    return {d.path: centred_value(d, rng) for d in picked}


def _weight(dimension: Dimension, context: PlanContext) -> float:
    seen = {canonical_json(value_at(trial.recipe, dimension.path)) for trial in context.trials}
    base = WEIGHTS.get(dimension.path.rsplit(".", 1)[-1], 1.0)
    return base * (UNTRIED_BONUS if len(seen) <= 1 else 1.0)


def _study(context: PlanContext, dimensions: tuple[Dimension, ...]) -> tuple[Any, dict[str, Any]]:
    """Return an in-memory study that holds the history, and the distributions to ask with."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = int.from_bytes(hashlib.sha256(f"{context.seed}:{context.loop}".encode()).digest()[:4], "big")
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_STARTUP, multivariate=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {d.path: _distribution(d) for d in dimensions}
    worst = min((t.val_score for t in context.trials if t.val_score is not None), default=0.0)
    for trial in context.trials:
        params = _params(trial, dimensions)
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={path: distributions[path] for path in params},
                value=worst if trial.val_score is None or trial.status == "failed" else trial.val_score,
            )
        )
    return study, distributions


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "categorical":
        # As text: a choice may be a list, which Optuna cannot hold.
        return CategoricalDistribution([canonical_json(choice) for choice in dimension.choices])
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _params(trial: Trial, dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """Return the trial's values where they lie inside the space; others tell TPE nothing."""
    params: dict[str, Any] = {}
    for dimension in dimensions:
        value = value_at(trial.recipe, dimension.path)
        if dimension.kind == "categorical":
            text = canonical_json(value)
            if text in [canonical_json(choice) for choice in dimension.choices]:
                params[dimension.path] = text
        elif (
            isinstance(value, (int, float))
            and dimension.low is not None
            and dimension.high is not None
            and dimension.low <= value <= dimension.high
        ):
            params[dimension.path] = int(value) if dimension.kind == "int" else float(value)
    return params


def _moves(context: PlanContext, dimensions: tuple[Dimension, ...], params: dict[str, Any]) -> dict[str, Any]:
    """Return the suggested values without the small moves, rounded to two digits that count."""
    moves: dict[str, Any] = {}
    for dimension in dimensions:
        suggested = params[dimension.path]
        old = value_at(context.parent_recipe, dimension.path)
        if dimension.kind == "categorical":
            by_text = {canonical_json(choice): choice for choice in dimension.choices}
            moves[dimension.path] = by_text[suggested]
            continue
        value = _rounded(dimension, suggested)
        if not isinstance(old, (int, float)) or move_share(dimension, old, value) >= SMALL_MOVE:
            moves[dimension.path] = value
    return moves


def _rounded(dimension: Dimension, value: float) -> float | int:
    if dimension.kind == "int":
        return int(value)
    assert dimension.low is not None
    assert dimension.high is not None
    return min(max(float(f"{value:.2g}"), float(dimension.low)), float(dimension.high))
