"""The same numbers from an independent library, where it is installed."""

from __future__ import annotations

import random

import pytest
from evaluation_rows import rows_of

from rdagent_ft.evaluation.distributions import clopper_pearson, mcnemar_p, wilson
from rdagent_ft.evaluation.guards import holm
from rdagent_ft.evaluation.statistics import compare

pytest.importorskip("statsmodels", reason="statsmodels is not installed: pip install statsmodels")

import numpy as np
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (7, 20), (450, 1319)])
def test_intervals_of_shares(hits: int, n: int) -> None:
    assert wilson(hits / n, n) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-9)
    assert clopper_pearson(hits, n) == pytest.approx(proportion_confint(hits, n, method="beta"), abs=1e-9)


@pytest.mark.parametrize(("gained", "lost"), [(3, 9), (12, 12), (70, 40)])
def test_mcnemar(gained: int, lost: int) -> None:
    table = [[100, lost], [gained, 100]]
    assert mcnemar_p(gained, lost) == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_holm() -> None:
    generator = random.Random(1)
    for _ in range(50):
        ps = [generator.random() ** 3 for _ in range(generator.randint(1, 9))]
        ours = holm({str(number): p for number, p in enumerate(ps)})
        assert [*ours.values()] == pytest.approx(multipletests(ps, method="holm")[1])


def test_clustered_error_is_that_of_a_regression_on_a_constant() -> None:
    generator = random.Random(2)
    clusters = [f"c{generator.randint(0, 24)}" for _ in range(150)]
    base = [generator.random() for _ in clusters]
    tuned = [generator.random() * 0.5 + 0.3 for _ in clusters]
    ours = compare(rows_of([*base], clusters), rows_of([*tuned], clusters), margin=0.02)
    codes = np.unique(clusters, return_inverse=True)[1]
    model = sm.OLS(np.subtract(tuned, base), np.ones(150))
    theirs = model.fit(cov_type="cluster", cov_kwds={"groups": codes, "df_correction": True}, use_t=True)
    # statsmodels multiplies by (n - 1) / (n - k) too, which is 1 for a constant alone.
    assert ours.se == pytest.approx(float(theirs.bse[0]))
    assert ours.ci95 == pytest.approx(tuple(theirs.conf_int()[0]))
    assert ours.p_value == pytest.approx(float(theirs.pvalues[0]))
