"""Means, intervals and comparisons against closed forms, scipy and simulation."""

from __future__ import annotations

import math
import random

import pytest
from evaluation_rows import rows_of
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.distributions import clopper_pearson, mcnemar_p, rule_of_three, wilson
from rdagent_ft.evaluation.rows import Comparison, SampleRow
from rdagent_ft.evaluation.statistics import compare, compare_scores, summarise


def compared(
    base: list[float | None],
    tuned: list[float | None],
    *,
    margin: float = 0.02,
    clusters: list[str] | None = None,
) -> Comparison:
    return compare(rows_of(base, clusters), rows_of(tuned, clusters), margin=margin)


def test_mean_and_se_of_a_small_sample() -> None:
    score = summarise(rows_of([0.0, 0.5, 1.0, 0.25]), scorer="token_f1", n_expected=4)
    assert score.value == pytest.approx(0.4375)
    # sd = sqrt(((.4375)^2 + .0625^2 + .5625^2 + .1875^2) / 3), by hand
    assert score.stderr == pytest.approx(math.sqrt(0.546875 / 3) / 2)
    t = stats.t.interval(0.95, 3, loc=score.value, scale=score.stderr)
    assert score.ci95 == pytest.approx((max(0.0, t[0]), min(1.0, t[1])))
    assert (score.n, score.n_expected, score.n_unscored) == (4, 4, 0)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (45, 99), (1, 400), (400, 400)])
def test_shares_get_wilson_where_t_is_too_narrow(hits: int, n: int) -> None:
    score = summarise(rows_of([1.0] * hits + [0.0] * (n - hits)), scorer="exact_match", n_expected=n)
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert score.ci95 == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert score.ci95[0] <= score.value <= score.ci95[1]


def test_large_share_gets_t() -> None:
    score = summarise(rows_of([1.0] * 300 + [0.0] * 200), scorer="exact_match", n_expected=500)
    assert score.stderr == pytest.approx(math.sqrt(0.6 * 0.4 / 499))
    half = float(stats.t.ppf(0.975, 499)) * score.stderr
    assert score.ci95 == pytest.approx((0.6 - half, 0.6 + half))


def test_unscored_items_leave_the_mean_and_are_counted() -> None:
    score = summarise(rows_of([1.0, None, 0.0, None]), scorer="exact_match", n_expected=5)
    assert (score.value, score.n, score.n_unscored, score.n_expected) == (0.5, 2, 2, 5)
    with pytest.raises(JobError, match="none of the 2 answers"):
        summarise(rows_of([None, None]), scorer="exact_match", n_expected=2)


def test_repeats_of_an_item_are_one_observation() -> None:
    rows = rows_of([1.0, 0.0]) + rows_of([0.0, 0.0], repeat=1)
    score = summarise(rows, scorer="exact_match", n_expected=2)
    assert (score.n, score.value) == (2, 0.25)
    with pytest.raises(JobError, match="i0 has two answers"):
        summarise(rows_of([1.0]) + rows_of([1.0]), scorer="exact_match", n_expected=1)


def test_clustered_se_is_the_se_of_cluster_sums() -> None:
    # Two clusters of two equal items: as if there were only two observations.
    clustered = summarise(
        rows_of([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"]), scorer="token_f1", n_expected=4
    )
    # sums of residuals are +1 and -1; sqrt(2 / 1 * 2) / 4
    assert clustered.stderr == pytest.approx(0.5)
    alone = summarise(rows_of([1.0, 1.0, 0.0, 0.0]), scorer="token_f1", n_expected=4)
    assert alone.stderr == pytest.approx(math.sqrt(1 / 3) / 2)


def test_paired_t_interval_equals_scipy() -> None:
    random.seed(3)
    base = [random.random() for _ in range(60)]
    tuned = [min(1.0, value + random.gauss(0.05, 0.1)) for value in base]
    result = compared([*base], [*tuned])
    expected = stats.ttest_rel(tuned, base).confidence_interval(0.95)
    assert result.ci95 == pytest.approx((expected.low, expected.high))
    assert result.mde == pytest.approx(2.8 * result.se)
    assert result.discordant is None
    assert result.p_mcnemar is None


def test_clustered_comparison_widens_for_copies() -> None:
    base: list[float | None] = [0.2, 0.4, 0.1, 0.9, 0.5, 0.6]
    tuned: list[float | None] = [0.5, 0.5, 0.3, 0.9, 0.4, 0.9]
    once = compared(base, tuned)
    doubled = compared(base * 2, tuned * 2, clusters=[f"c{number}" for number in range(6)] * 2)
    assert doubled.delta == pytest.approx(once.delta)
    assert doubled.se == pytest.approx(once.se)
    assert doubled.ci95 == pytest.approx(once.ci95)
    assert doubled.n == 12


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    # Closed forms: 2 * sum of binomial tails / 2^n, capped at 1.
    [
        (0, 0, 1.0),
        (5, 0, 2 / 2**5),
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (6, 6, 1.0),
        (1, 0, 1.0),
        (0, 10, 2 / 2**10),
    ],
)
def test_mcnemar_is_the_exact_sign_test(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(p)
    base = [0.0] * gained + [1.0] * lost + [1.0] * 20
    tuned = [1.0] * gained + [0.0] * lost + [1.0] * 20
    result = compared([*base], [*tuned])
    assert result.discordant == (gained, lost)
    assert result.p_mcnemar == pytest.approx(p)


def test_verdicts() -> None:
    zeros: list[float | None] = [0.0] * 400
    assert compared(zeros, [*[1.0] * 60, *[0.0] * 340]).verdict == "improved"
    assert compared([*[1.0] * 60, *[0.0] * 340], zeros).verdict == "regressed"
    some = compared([*[1.0] * 20, *[0.0] * 380], [*[0.0] * 20, *[1.0] * 25, *[0.0] * 355])
    assert some.verdict == "inconclusive"
    assert some.ci95[0] < 0 < some.ci95[1]
    many = compared([*[1.0] * 20, *[0.0] * 9980], [*[0.0] * 20, *[1.0] * 20, *[0.0] * 9960])
    assert many.verdict == "equivalent"


def test_identical_answers_prove_equivalence_only_in_numbers() -> None:
    twenty = compared([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    assert (twenty.delta, twenty.se, twenty.verdict) == (0.0, 0.0, "inconclusive")
    assert twenty.ci95 == pytest.approx((-0.1391, 0.1391), abs=1e-4)
    assert twenty.mde == pytest.approx(0.1391, abs=1e-4)
    assert compared([1.0] * 148, [1.0] * 148).verdict == "inconclusive"
    assert compared([1.0] * 149, [1.0] * 149).verdict == "equivalent"


def test_few_items_claim_nothing() -> None:
    for n in (1, 2, 3):
        result = compared([0.0] * n, [1.0] * n)
        assert result.delta == 1.0
        assert result.verdict == "inconclusive", n
    assert compared([0.0] * 20, [1.0] * 20).verdict == "improved"


def test_few_discordant_pairs_need_the_exact_interval() -> None:
    # t alone would exclude 0 here: delta 1 pp, SE 0.5 pp on 400 items; McNemar p is 0.125.
    result = compared([0.0] * 400, [*[1.0] * 4, *[0.0] * 396])
    assert result.delta - 1.97 * result.se > 0
    assert result.p_mcnemar == pytest.approx(0.125)
    assert result.verdict != "improved"


@given(gained=st.integers(0, 29), lost=st.integers(0, 29), same=st.integers(0, 300))
def test_improved_with_few_discordant_pairs_implies_mcnemar(gained: int, lost: int, same: int) -> None:
    if gained + lost + same == 0:
        return
    base = [0.0] * gained + [1.0] * lost + [0.0] * same
    tuned = [1.0] * gained + [0.0] * lost + [0.0] * same
    result = compared([*base], [*tuned])
    assert result.ci95[0] <= result.delta <= result.ci95[1]
    assert result.p_mcnemar is not None
    if gained + lost < 30 and same and result.verdict in ("improved", "regressed"):
        assert result.p_mcnemar <= 0.05
    mirrored = compared([*tuned], [*base])
    assert mirrored.delta == -result.delta
    assert mirrored.ci95 == pytest.approx((-result.ci95[1], -result.ci95[0]))


def test_unscored_on_one_side_leaves_the_pair() -> None:
    result = compared([1.0, None, 0.0, 1.0], [1.0, 1.0, None, 0.0])
    assert (result.n, result.base, result.tuned) == (2, 1.0, 0.5)
    with pytest.raises(JobError, match="scored on both sides"):
        compared([1.0, None], [None, 1.0])


def test_unequal_items_and_prompts_are_named() -> None:
    base, tuned = rows_of([1.0, 0.0, 1.0]), rows_of([1.0, 0.0, 1.0])
    with pytest.raises(JobError, match=r"1 only in base \(i2\), 0 only in tuned"):
        compare(base, tuned[:2], margin=0.02)
    changed = [tuned[0], tuned[1].model_copy(update={"prompt_hash": "other"}), tuned[2]]
    with pytest.raises(JobError, match=r"different prompts for 1 items \(i1\)"):
        compare(base, changed, margin=0.02)
    with pytest.raises(JobError, match="cannot compare"):
        compare(base, rows_of([1.0, 0.0, 1.0], split="test"), margin=0.02)
    with pytest.raises(JobError, match="expected the answers of one benchmark split, found: none"):
        compare([], [], margin=0.02)


def test_order_of_rows_does_not_matter() -> None:
    base, tuned = rows_of([1.0, 0.0, 1.0, 0.5]), rows_of([0.0, 0.0, 1.0, 1.0])
    assert compare(base, tuned[::-1], margin=0.02) == compare(base, tuned, margin=0.02)


@given(st.integers(1, 500), st.data())
def test_intervals_of_shares_hold_the_share(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    for low, high in (wilson(hits / n, n), clopper_pearson(hits, n)):
        assert 0.0 <= low <= hits / n <= high <= 1.0
    exact = stats.binomtest(hits, n).proportion_ci(method="exact")
    assert clopper_pearson(hits, n) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_rule_of_three_is_near_three_over_n() -> None:
    assert rule_of_three(300) == pytest.approx(0.01, rel=0.01)
    assert (1 - rule_of_three(7)) ** 7 == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("p_gain", "p_loss", "n"), [(0.15, 0.10, 100), (0.02, 0.0, 200), (0.01, 0.01, 60), (0.6, 0.0, 12)]
)
def test_interval_covers_the_true_difference(p_gain: float, p_loss: float, n: int) -> None:
    """400 seeded campaigns: at least 93 % of intervals hold the truth (95 % minus 2 simulation SE)."""
    generator = random.Random(11)
    n_covered, n_campaigns = 0, 400
    for _ in range(n_campaigns):
        draws = [generator.random() for _ in range(n)]
        base: list[SampleRow] = rows_of([1.0 if p_gain <= d < p_gain + p_loss else 0.0 for d in draws])
        tuned = rows_of([1.0 if d < p_gain else 0.0 for d in draws])
        low, high = compare(base, tuned, margin=0.02).ci95
        n_covered += low <= p_gain - p_loss <= high
    assert n_covered >= 0.93 * n_campaigns


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_equals_scipys_binomial_test(gained: int, lost: int) -> None:
    if gained + lost:
        assert mcnemar_p(gained, lost) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_p_value_is_mcnemars_for_independent_shares_and_students_elsewhere() -> None:
    shares = compared([0.0] * 8 + [1.0] * 2 + [1.0] * 20, [1.0] * 8 + [0.0] * 2 + [1.0] * 20)
    assert shares.p_value == shares.p_mcnemar == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    random.seed(8)
    base = [random.random() for _ in range(40)]
    tuned = [random.random() for _ in range(40)]
    assert compared([*base], [*tuned]).p_value == pytest.approx(float(stats.ttest_rel(tuned, base).pvalue))
    # Each item three times: clustered, the copies add nothing; McNemar would take them as new.
    copies = compared(
        ([0.0] * 8 + [1.0] * 22) * 3,
        ([1.0] * 8 + [0.0] * 2 + [1.0] * 20) * 3,
        clusters=[f"c{n}" for n in range(30)] * 3,
    )
    assert copies.p_mcnemar is not None
    assert copies.p_value is not None
    assert copies.p_mcnemar < 0.01 < 0.05 < copies.p_value


def test_p_value_without_variation_is_the_sign_flip_test() -> None:
    assert compared([0.25] * 6, [0.5] * 6).p_value == pytest.approx(2 / 2**6)
    assert compared([0.25], [0.5]).p_value == 1.0
    assert compared([0.25] * 50, [0.25] * 50).p_value == 1.0


def test_paired_scores_give_what_rows_give() -> None:
    base, tuned = [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]
    pairs = compare_scores(base, tuned, benchmark="heldout", split="val", margin=0.02)
    assert pairs == compared([*base], [*tuned])
    for left, right in [([], []), ([1.0], [1.0, 0.0])]:
        with pytest.raises(ValueError, match="not pairs"):
            compare_scores(left, right, benchmark="heldout", split="val", margin=0.02)
