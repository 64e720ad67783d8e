"""Means with intervals, and their text."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from slug.reports import intervals


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0])
    wanted = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert intervals.mean_interval(values) == pytest.approx((values.mean(), *wanted))


def test_one_name_has_no_interval():
    mean, low, high = intervals.mean_interval([3.0])
    assert mean == 3 and math.isnan(low) and math.isnan(high)


def test_an_accuracy_is_cut_at_0_and_100():
    assert intervals.cell(pd.Series([0.0, 0.02])) == "1.0 (0.0 to 13.7)"
    assert intervals.cell(pd.Series([0.98, 1.0])) == "99.0 (86.3 to 100.0)"


def test_cells_of_one_name_and_of_nothing():
    assert intervals.cell(pd.Series([0.5])) == "50.0" and intervals.change(pd.Series([-0.015])) == "-1.5"
    assert intervals.cell(pd.Series([math.nan] * 2)) == "" == intervals.change(pd.Series([math.nan] * 2))


def test_accuracies_that_are_all_equal_have_no_interval():
    assert intervals.cell(pd.Series([0.0, 0.0])) == "0.0"


def test_a_change_has_signs():
    assert intervals.change(pd.Series([-0.01, 0.01])) == "+0.0 (-12.7 to +12.7)"
    row = {"x_change": -0.01, "x_change_low": -0.02, "x_change_high": 0.005}
    assert intervals.paired(row, "x") == "-1.00 (-2.00 to +0.50)"


@pytest.mark.parametrize(
    ("change", "low", "high", "wanted"),
    [
        (-0.5, -1.0, 0.0, "within"),
        (-1.5, -2.0, -1.0, "beyond"),
        (1.5, 1.0, 2.0, "within"),
        (-0.5, -2.0, 1.0, "not resolved"),
    ],
)
def test_a_verdict_follows_the_margin(change, low, high, wanted):
    row = {"x_change": change / 100, "x_change_low": low / 100, "x_change_high": high / 100}
    assert intervals.verdict(row, "x", 1) == wanted
