"""Intervals."""

import numpy as np
import pytest
from scipy import stats

from slug.evaluation import statistics


@pytest.mark.parametrize(("correct", "total"), [(1, 10), (5, 10), (9, 10), (466, 500)])
def test_the_interval_is_that_of_clopper_and_pearson(correct, total):
    low, high = statistics.interval(correct, total)
    assert low < correct / total < high
    assert stats.binom.sf(correct - 1, total, low) == pytest.approx(0.025)
    assert stats.binom.cdf(correct, total, high) == pytest.approx(0.025)


def test_a_zero_has_a_one_sided_bound():
    assert statistics.interval(0, 59) == (0, pytest.approx(1 - 0.05 ** (1 / 59)))


def test_a_full_score_has_a_one_sided_bound():
    assert statistics.interval(10, 10) == (pytest.approx(0.05**0.1), 1)


def test_without_trials_nothing_is_known():
    assert statistics.interval(0, 0) == (0, 1)


@pytest.fixture
def drawn():
    """400 pictures of 10 groups, recognised before, and after with a tenth lost."""
    rng = np.random.default_rng(0)
    before = rng.random(400) < 0.8
    return before, np.where(rng.random(400) < 0.1, False, before), np.arange(400) // 40


def test_the_interval_of_independent_pairs_is_the_normal_one(drawn):
    before, after, _ = drawn
    mean, low, high = statistics.paired_difference(before, after, np.arange(400))
    assert mean == pytest.approx(after.mean() - before.mean())
    error = (after.astype(float) - before).std() / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.01) and high == pytest.approx(mean + 1.96 * error, abs=0.01)


def test_no_change_has_no_interval(drawn):
    before, _, _ = drawn
    assert statistics.paired_difference(before, before, np.arange(400)) == (0, 0, 0)


def test_a_paired_difference_is_seeded(drawn):
    before, after, _ = drawn
    weights = np.arange(400) % 7 / 10  # accuracies of many values: two seeds do not give the same interval by chance
    found = [statistics.paired_difference(before * weights, after * weights, np.arange(400), seed=s) for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_pictures_that_change_together_leave_more_to_chance(drawn):
    before, _, groups = drawn
    together = np.where(groups == 3, False, before)
    wide, narrow = (np.ptp(statistics.paired_difference(before, together, g)[1:]) for g in (groups, np.arange(400)))
    assert wide > 2 * narrow
