"""The paired comparison of classifiers, against scipy's bootstrap and McNemar's test."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks.recipes.stats import pack, paired_difference, unpack


def test_paired_difference_is_scipys_for_one_seed() -> None:
    rng = np.random.default_rng(0)
    baseline = rng.random(800) < 0.8
    mine = np.where(rng.random(800) < 0.1, ~baseline, baseline) | (rng.random(800) < 0.1)
    found = paired_difference(mine[None], baseline[None])
    expected = scipy_stats.bootstrap(
        ((mine.astype(float) - baseline),), np.mean, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    assert found.mean == pytest.approx(mine.mean() - baseline.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=2e-3)


def test_paired_difference_agrees_with_mcnemar_on_what_is_significant() -> None:
    rng = np.random.default_rng(1)
    for gained, lost in [(12, 10), (60, 20), (30, 55), (5, 25)]:
        baseline, mine = np.ones(500, dtype=bool), np.ones(500, dtype=bool)
        rows = rng.permutation(500)[: gained + lost]
        baseline[rows[:gained]] = False
        mine[rows[gained:]] = False
        exact = scipy_stats.binomtest(gained, gained + lost).pvalue
        found = paired_difference(mine[None], baseline[None])
        assert (found.p < 0.05) == (exact < 0.05)
        assert (found.low > 0 or found.high < 0) == (exact < 0.05)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    baseline = rng.random((3, 1000)) < 0.8
    same = np.broadcast_to(rng.random(1000) < 0.85, (3, 1000))
    unlike = np.stack([rng.random(1000) < share for share in (0.7, 0.85, 1.0)])
    narrow, wide = paired_difference(same, baseline), paired_difference(unlike, baseline)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    with pytest.raises(ValueError, match="not in pairs"):
        paired_difference(same[:2], baseline)


def test_packed_rows_come_back() -> None:
    correct = np.random.default_rng(3).random(77) < 0.5
    assert (unpack(pack(correct), 77) == correct).all()
