"""The planners without an LLM: deterministic, valid, new, readable, and better than chance."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_case import FACTS, after, context, score

from rdagent_ft.errors import PreflightError
from rdagent_ft.planning.history import tried_hashes, typical_gain_pp, value_at
from rdagent_ft.planning.port import PlanContext, Planner
from rdagent_ft.planning.random import RandomPlanner
from rdagent_ft.planning.sample import (
    SMALL_MOVE,
    centred_value,
    first_new_proposal,
    move_share,
    space_of,
    uniform_value,
)
from rdagent_ft.planning.tpe import N_STARTUP, TpePlanner
from rdagent_ft.planning.words import hypothesis_text
from rdagent_ft.recipe.diff import apply_diff
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.space import in_space
from rdagent_ft.recipe.stages import FullAdapter, SftStage

PLANNERS: tuple[Planner, ...] = (TpePlanner(), RandomPlanner())


def _campaign(planner: Planner, n_loops: int, start: PlanContext, fail_every: int = 0) -> list[PlanContext]:
    """Return the contexts of all loops, checking each proposal on the way."""
    contexts = [start]
    for loop in range(1, n_loops + 1):
        now = contexts[-1]
        proposal = planner.ask(now)
        assert proposal.recipe.hash not in tried_hashes(now)
        assert check_recipe(proposal.recipe, now.rule_facts) == []
        assert apply_diff(now.parent_recipe, proposal.diff) == proposal.recipe
        assert proposal.diff
        assert proposal.planner == planner.name
        contexts.append(after(now, proposal, failed=fail_every > 0 and loop % fail_every == 0))
    return contexts


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
@pytest.mark.parametrize("seed", [0, 42])
def test_a_campaign_is_valid_new_and_repeats_exactly(planner: Planner, seed: int) -> None:
    start = context(seed=seed)
    first = _campaign(planner, 14, start, fail_every=4)
    assert _campaign(planner, 14, start, fail_every=4) == first
    # Resuming in the middle asks the same question: a planner keeps nothing between calls.
    assert type(planner)().ask(first[9]) == planner.ask(first[9])


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_clock_and_money_do_not_change_a_proposal(planner: Planner) -> None:
    assert planner.ask(context(time_left_s=5.0, usd_left=1.0)) == planner.ask(context())


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_full_fine_tuning_and_no_sources(planner: Planner) -> None:
    recipe = Recipe(stages=(SftStage(adapter=FullAdapter(), learning_rate=1e-3),))
    _campaign(planner, 8, context(default_recipe=recipe, sources={}, token_percentiles={}))


def test_early_steps_are_small_and_cite_their_priors() -> None:
    now = context()
    known = {d.prior_id for d in space_of(now)}
    for seed in range(30):
        proposal = TpePlanner().ask(context(seed=seed))
        named = [path for path in proposal.diff if not path.endswith("micro_batch")]
        assert 1 <= len(named) <= 3 or list(proposal.diff) == ["stages.0.micro_batch"]
        assert set(proposal.cites) <= known
        assert "val exact match" in proposal.hypothesis
        assert "pp" in proposal.prediction


def test_early_steps_differ_by_seed_and_loop() -> None:
    by_seed = {TpePlanner().ask(context(seed=seed)).recipe.hash for seed in range(10)}
    by_loop = {TpePlanner().ask(context(loop=loop)).recipe.hash for loop in range(1, 11)}
    assert len(by_seed) >= 8
    assert len(by_loop) >= 8


def test_tpe_learns_from_scores() -> None:
    bad = Recipe(stages=(SftStage(learning_rate=2e-5, epochs=1.0),))

    def best(planner: Planner, seed: int) -> float:
        last = _campaign(planner, 25, context(seed=seed, default_recipe=bad))[-1]
        return max(score(trial.recipe) for trial in last.trials)

    seeds = range(3)
    tpe, chance = (sum(best(planner, seed) for seed in seeds) / 3 for planner in PLANNERS)
    assert tpe > score(bad) + 0.1
    assert tpe > chance - 0.05


def test_failed_loops_count_as_worst() -> None:
    """Where high learning rates fail, TPE goes lower than where they score best."""

    def rates(fail_high: bool) -> float:
        now = context()
        for i in range(N_STARTUP + 11):
            rate = 5e-5 * 1.25**i  # up to 1.8e-3, the whole range
            recipe = apply_diff(Recipe(), {"stages.0.learning_rate": rate})
            trial = now.trials[0].model_copy(
                update={
                    "loop": i + 1,
                    "recipe": recipe,
                    "status": "failed" if fail_high and rate > 2e-4 else "rejected",
                    "val_score": None if fail_high and rate > 2e-4 else 0.3 + rate * 100,
                }
            )
            now = now.model_copy(update={"trials": (*now.trials, trial), "loop": i + 2})
        asked = [TpePlanner().ask(now.model_copy(update={"seed": seed})).recipe for seed in range(5)]
        return sum(recipe.stages[0].learning_rate for recipe in asked) / len(asked)

    assert rates(fail_high=True) < rates(fail_high=False)


def test_optuna_leaves_logging_as_it_was() -> None:
    before = list(logging.getLogger().handlers), logging.getLogger().level
    now = _campaign(TpePlanner(), N_STARTUP + 1, context())[-1]
    TpePlanner().ask(now)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


def test_a_used_up_space_is_one_clear_error() -> None:
    now = context()
    with pytest.raises(PreflightError, match="already trained"):
        first_new_proposal(now, space_of(now), lambda _: {}, "tpe")


def test_rules_that_cannot_be_met_are_named() -> None:
    now = context(rule_facts=FACTS.model_copy(update={"max_positions": 4}))
    with pytest.raises(PreflightError, match="context of 4 tokens"):
        TpePlanner().ask(now)


@settings(max_examples=40, deadline=None)
@given(effective=st.integers(1, 300), micro=st.integers(1, 300))
def test_micro_batch_is_made_to_divide(effective: int, micro: int) -> None:
    now = context(rule_facts=FACTS)
    diff = {"stages.0.effective_batch": effective, "stages.0.micro_batch": micro, "stages.0.epochs": 3.5}
    stage = first_new_proposal(now, space_of(now), lambda _: diff, "tpe").recipe.stages[0]
    assert stage.effective_batch == effective
    assert effective % stage.micro_batch == 0
    assert stage.micro_batch <= micro


@pytest.mark.parametrize(
    ("diff", "expected"),
    [
        (
            {"stages.0.learning_rate": 6e-4},
            "A higher learning rate (2e-4 -> 6e-4) improves val exact match; prior p",
        ),
        ({"stages.0.epochs": 1.0}, "Fewer epochs (2 -> 1) improves val exact match; prior p"),
        (
            {"data.dedupe": "near", "stages.0.packing": True},
            "Dropping near duplicates and switching packing on together improve val exact match; prior p",
        ),
        ({"data.exclude_sources": ["web"]}, "Leaving out source web improves val exact match; prior p"),
        ({"data.max_row_tokens": 99}, "Dropping rows over 99 tokens improves val exact match; prior p"),
        ({"data.max_items": 500}, "Max items 500 instead of none improves val exact match; prior p"),
        (
            {
                f"stages.0.{name}": 0.1
                for name in ("epochs", "warmup_ratio", "weight_decay", "max_grad_norm", "x")
            },
            "Fewer epochs (2 -> 0.1), a higher warmup ratio (0.05 -> 0.1), a higher weight decay (0 -> 0.1) "
            "and 2 more changes together improve val exact match; prior p",
        ),
    ],
)
def test_hypotheses_read_as_sentences(diff: dict[str, Any], expected: str) -> None:
    assert hypothesis_text(Recipe(), diff, scorer="exact_match", cites=("p",)) == expected


@given(st.integers(0, 10_000))
def test_draws_stay_in_the_space_and_move(seed: int) -> None:
    rng = random.Random(seed)
    for dimension in space_of(context()):
        near, anywhere = centred_value(dimension, rng), uniform_value(dimension, rng)
        assert in_space(dimension, near)
        assert in_space(dimension, anywhere)
        assert near != dimension.centre
        if dimension.kind != "categorical":
            assert move_share(dimension, dimension.centre, near) >= SMALL_MOVE


def test_predictions_come_from_the_run_itself() -> None:
    now = context()
    assert typical_gain_pp(now)[:2] == (0.5, 3.0)  # the jump from the base model is no measure
    gains = [(1, "accepted", 0.02), (2, "rejected", 0.3), (3, "accepted", 0.04), (4, "accepted", 0.01)]
    trials = tuple(
        now.trials[0].model_copy(update={"loop": loop, "parent": 0, "status": status, "delta": delta})
        for loop, status, delta in gains
    )
    later = now.model_copy(update={"trials": (*now.trials, *trials)})
    assert typical_gain_pp(later)[:2] == (1.0, 4.0)


def test_value_at() -> None:
    recipe = Recipe()
    assert value_at(recipe, "stages.0.adapter.r") == 16
    assert value_at(recipe, "data.exclude_sources") == []
    for path in ("stages.1.epochs", "stages.x", "data.nothing", "data.dedupe.more"):
        assert value_at(recipe, path) is None
