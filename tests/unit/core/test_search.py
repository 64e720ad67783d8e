"""How the step of a layer is found."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slug.core import search
from slug.core.search import Schedule


def steps_of(forgets, first, rule="robust", evaluations=10):
    """The history of one layer whose step s is forgotten where forgets(s): [(step, forgotten)]."""
    expected = []  # of each evaluation, the steps that were announced to come next

    def evaluate(step, coming):
        assert step == coming[0] and len(coming) <= 7
        assert all(step in earlier for earlier in expected[-2:])
        expected.append(coming)
        return (step, forgets(step)), forgets(step)

    schedule = Schedule(rule=rule, evaluations=evaluations, lookahead=3)
    return list(search.over_layer(evaluate, first, schedule))


@given(st.floats(-9, 3.9), st.floats(0.1, 10))
def test_robust_rule_closes_in_on_the_smallest_step_that_forgets(power, first):
    threshold = first * 2**power
    history = steps_of(lambda s: s >= threshold, first)
    smallest = min(s for s, forgotten in history if forgotten)
    assert len(history) <= 10
    assert threshold <= smallest
    if power > -6:
        assert smallest < threshold * 2


def test_a_first_step_a_thousand_times_too_large_comes_down():
    def forgets(step):
        return step >= 1e-3

    assert 1e-3 <= min(s for s, forgotten in steps_of(forgets, 1.0) if forgotten) < 1.5e-3
    paper = steps_of(forgets, 1.0, rule="paper")  # the published schedule only halves it
    assert [s for s, _ in paper] == [0.5**i for i in range(10)] and paper[-1][0] > 1.9e-3


@given(st.floats(-10, 2), st.floats(2, 4), st.floats(0.1, 10))
def test_robust_rule_finds_a_window_of_forgetting(low, width, first):
    """A step so large that the model knows nothing may read as not forgotten: forgotten only within [a, b], b >= 4 a."""
    a, b = first * 2**low, first * 2 ** (low + width)
    history = steps_of(lambda s: a <= s <= b, first)
    assert any(forgotten for _, forgotten in history), history


def test_paper_rule_runs_away_from_a_window_below_the_first_step():
    def window(step):
        return 0.02 <= step <= 0.2

    assert any(forgotten for _, forgotten in steps_of(window, 1.0))
    paper = steps_of(window, 1.0, rule="paper")
    assert [s for s, _ in paper] == [2.0**i for i in range(10)] and not any(forgotten for _, forgotten in paper)


@given(st.lists(st.booleans(), min_size=10, max_size=10), st.floats(0.01, 100))
def test_robust_rule_keeps_its_bracket_whatever_it_is_told(answers, first):
    """Below the smallest step that forgets lies the next one, above every smaller step that does not."""
    history = []
    for forgotten in answers:
        step = search.next_step(history, first)
        if step is None:
            break
        assert step > 0 and math.isfinite(step) and step not in [s for s, _ in history]
        hits = [s for s, f in history if f]
        if hits:
            assert step < min(hits)
            assert all(s < step for s, f in history if not f and s < min(hits))
        history.append((step, forgotten))


def test_a_long_reach_grows_faster_and_may_end_above_the_first_step():
    def history(progress, **reach):
        return [s for s, _ in search.over_layer(lambda s, _: ((s, 0), progress(s)), 1.0, Schedule(evaluations=8, **reach))]

    reach = {"growth": 4, "far": 64, "below": False}
    assert history(lambda s: 0.0, **reach) == [1, 4, 16, 64]
    assert history(lambda s: 1.0 if s >= 16 else 0.1, **reach)[:4] == [1, 4, 16, 8]
    # Nothing is enough, but 4 gets furthest: both sides of it are looked at.
    near = history(lambda s: 0.5 / (1 + abs(math.log2(s / 5))), **reach)
    assert near[:7] == pytest.approx([1, 4, 16, 64, 8, 2, 32**0.5]) and len(near) == 8
    assert min(abs(math.log2(s / 5)) for s in near[4:]) < 0.25


def test_a_group_that_got_no_further_than_its_first_step_is_looked_for_below_it():
    assert search.next_step([(1.0, 0.2), (2.0, 0.2), (4.0, 0.1)], 1.0, Schedule(far=4)) == 0.25
    assert search.next_step([(1.0, 0.2), (2.0, 0.2), (4.0, 0.1)], 1.0, Schedule(far=4, below=False)) is None


def test_robust_rule_stops_where_the_bracket_is_narrow():
    history = steps_of(lambda s: s >= 1.5, 1.0, evaluations=50)
    smallest = min(s for s, forgotten in history if forgotten)
    assert len(history) < 10 and smallest < 1.5 * search.CLOSE


def test_paper_rule_doubles_then_bisects():
    assert [s for s, _ in steps_of(lambda s: s >= 3, 1.0, rule="paper", evaluations=6)] == [1, 2, 4, 3, 2.5, 2.75]
