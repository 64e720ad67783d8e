"""Grids that grow while the best setting lies at an end."""

import pytest

from slug.methods import grids

ASKED = [1e-5, 1e-4]


def test_the_grid_grows_at_the_end_where_the_best_setting_lies():
    assert grids.beyond(ASKED, [1e-4], ASKED, 2) == [3.2e-4]


def test_where_names_differ_the_grid_grows_at_both_ends():
    assert grids.beyond(ASKED, [1e-5, 1e-4], ASKED, 2) == [3.2e-6, 3.2e-4]


@pytest.mark.parametrize(
    ("grid", "chosen", "asked", "grow"),
    [
        ([*ASKED, 3.2e-4], [1e-4], ASKED, 2),  # the best lies inside
        ([*ASKED, 3.2e-4, 1e-3], [1e-3], ASKED, 2),  # two half decades are used up
        ([1e-5], [1e-5], [1e-5], 4),  # a single setting is no grid
        (ASKED, [1e-4], ASKED, 0),
    ],
)
def test_else_the_grid_does_not_grow(grid, chosen, asked, grow):
    assert grids.beyond(grid, chosen, asked, grow) == []


def test_settings_are_tried_until_the_best_lies_inside():
    best = iter([[1e-4], [3.2e-4], [3.2e-4]])
    assert list(grids.growing(ASKED, 4, lambda: next(best))) == [1e-5, 1e-4, 3.2e-4, 1e-3]


def test_without_settings_nothing_is_tried():
    assert list(grids.growing([], 4, list)) == []


def test_whether_the_best_lies_inside_is_unknown_of_a_single_setting():
    assert (grids.inside([1, 2, 3], 2), grids.inside([1, 2], 2), grids.inside([1], 1)) == (True, False, None)
