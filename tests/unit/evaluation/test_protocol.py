"""The early stop by an exact bound: it never changes which candidate wins."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slug.evaluation.protocol import score_while_it_can_win

SIZES = {"identities": 8, "objects": 12}


def rounds_of(answers, chunk, asked=None):
    """The answers {task: [bool]} part by part; `asked` counts the parts that were computed."""
    parts = {t: torch.tensor(a).split(chunk) for t, a in answers.items()}
    for number in range(max(map(len, parts.values()))):
        if asked is not None:
            asked.append(number)
        yield {t: p[number] for t, p in parts.items() if number < len(p)}


answers = st.fixed_dictionaries({t: st.lists(st.booleans(), min_size=n, max_size=n) for t, n in SIZES.items()})


def mean(found):
    return sum(sum(a) / len(a) for a in found.values()) / len(found)


@given(answers, st.integers(1, 12))
def test_without_anything_to_beat_all_is_scored_exactly(found, chunk):
    bounds = score_while_it_can_win(rounds_of(found, chunk), SIZES)
    assert bounds.complete and bounds.above_floors
    assert bounds.values == pytest.approx({t: sum(a) / len(a) for t, a in found.items()})


@given(st.lists(answers, min_size=1, max_size=6), st.integers(1, 12))
def test_the_winner_is_that_of_scoring_everything(candidates, chunk):
    best, beat = None, -math.inf
    for number, found in enumerate(candidates):
        bounds = score_while_it_can_win(rounds_of(found, chunk), SIZES, beat=beat)
        value = sum(bounds.values.values()) / len(SIZES)
        if bounds.complete and value > beat + 1e-9:
            best, beat = number, value
    exact = [mean(c) for c in candidates]
    assert best == next(n for n, value in enumerate(exact) if value >= max(exact) - 1e-9)


@given(answers, st.floats(0, 1), st.integers(1, 12))
def test_what_was_stopped_could_not_have_won(found, beat, chunk):
    bounds = score_while_it_can_win(rounds_of(found, chunk), SIZES, beat=beat)
    assert bounds.complete or mean(found) < beat
    assert all(sum(a) / len(a) <= bounds.values[t] + 1e-9 for t, a in found.items())


def test_a_tie_is_scored_to_the_end():
    found = {"identities": [False, *[True] * 7], "objects": [True] * 12}
    assert score_while_it_can_win(rounds_of(found, 1), SIZES, beat=mean(found)).complete


def test_parts_after_the_stop_are_not_computed():
    asked, found = [], {"identities": [False] * 8, "objects": [True] * 12}
    bounds = score_while_it_can_win(rounds_of(found, 1, asked), SIZES, beat=0.9)
    assert not bounds.complete and asked == [0, 1]  # 1 - (1/8)/2 > 0.9 > 1 - (2/8)/2


@given(answers, st.floats(0, 1), st.integers(1, 12))
def test_a_task_below_its_floor_ends_it(found, floor, chunk):
    bounds = score_while_it_can_win(rounds_of(found, chunk), SIZES, floors={"objects": floor})
    assert bounds.above_floors == bounds.complete == (1 - found["objects"].count(False) / 12 >= floor)


def test_a_floor_concerns_its_own_task_only():
    found = {"identities": [False] * 8, "objects": [True] * 12}
    bounds = score_while_it_can_win(rounds_of(found, 4), SIZES, floors={"objects": 1.0})
    assert bounds.complete and bounds.values["identities"] == 0
