"""Comparisons name by name: corrections, ranks and critical differences against published figures and by hand."""

import math

import pandas as pd
import pytest

from slug.reports import ranking


def rows(**methods):
    """A row for each method and name: (retained change in points of both tasks, forget accuracy)."""
    return pd.DataFrame(
        [
            {"method": m, "name": f"n{i}", "identities_change": c / 100, "objects_change": c / 100, "forget_acc1": f}
            for m, values in methods.items()
            for i, (c, f) in enumerate(values)
        ]
    )


def test_holm_multiplies_by_the_comparisons_that_are_left_and_never_falls():
    assert ranking.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ranking.holm([0.6, 0.7]) == [1.0, 1.0] and ranking.holm([]) == []


@pytest.mark.parametrize(("won", "lost", "wanted"), [(5, 0, 2 / 32), (0, 5, 2 / 32), (3, 3, 1.0), (0, 0, 1.0)])
def test_the_sign_test_counts_both_sides(won, lost, wanted):
    assert ranking.sign_test(won, lost) == pytest.approx(wanted)


@pytest.mark.parametrize(("methods", "names", "q"), [(2, 10, 1.960), (5, 30, 2.728), (10, 40, 3.164)])
def test_the_critical_difference_is_nemenyis(methods, names, q):
    """q of table 5 of Demsar, JMLR 2006, at 5%."""
    assert ranking.critical_difference(methods, names) == pytest.approx(
        q * math.sqrt(methods * (methods + 1) / (6 * names)), rel=1e-3
    )


def test_one_method_or_one_name_has_no_critical_difference():
    assert math.isnan(ranking.critical_difference(1, 10)) and math.isnan(ranking.critical_difference(3, 1))


def test_a_method_that_forgets_wins_whatever_it_retains():
    found = rows(
        slug=[(-5, 0.0), (-1, 0.0), (-1, 0.02)], ft=[(0, 0.9), (-2, 0.0), (-1, 0.02)], other=[(-1, 0.0), (0, 0.0), (0, 0.0)]
    )
    pairs = {p.method: p for p in ranking.against(found, "slug", 0.02)}
    assert (pairs["ft"].won, pairs["ft"].lost, pairs["ft"].names) == (0, 2, 3)
    assert (pairs["other"].won, pairs["other"].lost) == (3, 0)
    assert pairs["other"].change[0] == pytest.approx(2.0) and pairs["other"].corrected == pytest.approx(0.5)


def test_only_names_that_both_were_run_on_are_compared():
    found = rows(slug=[(-1, 0.0), (-1, 0.0)], ft=[(0, 0.0)])
    (pair,) = ranking.against(found, "slug", 0.02)
    assert (pair.names, pair.won) == (1, 1) and math.isnan(pair.change[1])
    assert ranking.mean_ranks(found, 0.02) == ({"ft": 1.0, "slug": 2.0}, 1)


def test_ranks_of_ties_are_shared():
    mean, names = ranking.mean_ranks(rows(a=[(0, 0), (0, 0)], b=[(0, 0), (1, 0)], c=[(-1, 0), (-1, 0)]), 0.02)
    assert mean == {"b": 1.25, "a": 1.75, "c": 3.0} and names == 2


def test_bars_join_ranks_that_differ_by_less_than_the_critical_difference():
    ranks = {"a": 1.0, "b": 1.5, "c": 2.4, "d": 5.0}
    assert ranking.cliques(ranks, 1.0) == [(1.0, 1.5), (1.5, 2.4)]
    assert ranking.cliques(ranks, 0.1) == [] and ranking.cliques(ranks, 9) == [(1.0, 5.0)]
