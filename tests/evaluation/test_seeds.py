"""A claim from several trainings: wider than one training's, narrow only where the seeds agree."""

from __future__ import annotations

import random

import pytest

from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.seeds import compare_seeds
from rdagent_ft.evaluation.statistics import compare


def rows(scores: list[float]) -> list[SampleRow]:
    return [
        SampleRow(
            benchmark="b",
            split="test",
            item_id=f"i{number}",
            prompt_hash="p",
            prediction="",
            gold="",
            score=s,
        )
        for number, s in enumerate(scores)
    ]


def drawn(generator: random.Random, n: int, p: float) -> list[float]:
    return [float(generator.random() < p) for _ in range(n)]


def test_equal_trainings_give_the_comparison_of_one() -> None:
    generator = random.Random(1)
    base, tuned = rows(drawn(generator, 300, 0.4)), rows(drawn(generator, 300, 0.6))
    found = compare_seeds(base, {1: tuned, 2: tuned, 3: tuned}, margin=0.02)
    one = compare(base, tuned, margin=0.02)
    assert found.seed_sd == 0.0
    assert found.comparison.delta == pytest.approx(one.delta)
    assert found.comparison.se == pytest.approx(one.se)
    assert found.comparison.verdict == one.verdict


def test_seeds_that_disagree_take_the_claim_away() -> None:
    base = rows([0.0] * 400)
    lucky, dull = rows([1.0] * 100 + [0.0] * 300), rows([0.0] * 400)
    assert compare(base, lucky, margin=0.02).verdict == "improved"
    found = compare_seeds(base, {1: lucky, 2: dull, 3: dull}, margin=0.02)
    assert found.comparison.verdict == "inconclusive"
    assert found.deltas == {1: 0.25, 2: 0.0, 3: 0.0}
    low, high = found.comparison.ci95
    assert low < 0 < found.comparison.delta < high
    assert (found.comparison.p_value or 0) > 0.05


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="1 seed"):
        compare_seeds(rows([0.0]), {1: rows([1.0])}, margin=0.02)


def test_repeats_of_each_training_are_kept_apart() -> None:
    base = rows([0.0] * 50)
    twice = [row.model_copy(update={"repeat": k}) for row in rows([1.0] * 50) for k in (0, 1)]
    found = compare_seeds(base, {1: twice, 2: twice}, margin=0.02)
    assert found.comparison.delta == 1.0
    assert found.comparison.n == 50


def test_covers_what_it_says_when_seeds_and_items_vary() -> None:
    """Null worlds: each training shifts all items a little; a 95 % interval must hold 0 in about 95 %."""
    generator = random.Random(7)
    n_worlds, false_claims = 400, 0
    for _ in range(n_worlds):
        base = rows(drawn(generator, 200, 0.5))
        trainings = {
            seed: rows(drawn(generator, 200, min(1.0, max(0.0, 0.5 + generator.gauss(0, 0.05)))))
            for seed in range(3)
        }
        low, high = compare_seeds(base, trainings, margin=0.02).comparison.ci95
        false_claims += low > 0 or high < 0
    assert false_claims <= 0.06 * n_worlds
