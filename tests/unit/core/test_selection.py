"""Which candidate is kept."""

import dataclasses
import math

import pytest

from slug.core import selection
from slug.core.edit import Edit
from slug.core.selection import Candidate


def scored(layer="a", step=1.0, forget=0.0, retain=0.9, margin=-1.0, spread=0.1):
    """A Candidate with these figures."""
    forgotten = selection.forgets(forget, margin, spread)
    how = {"forgotten": forgotten, "retained": retain, "accuracy": forget, "margin": margin, "step": step}
    return Candidate(Edit({}, layer, step), {"forget": forget}, forgotten, 0.0, retain, selection.preference(**how))


def test_winner_is_the_best_retain_among_those_that_forget():
    best = scored(retain=0.8)
    assert selection.winner([scored(forget=0.3, retain=0.99), best, scored(retain=0.7), scored(retain=math.nan)]) == best


def test_a_rule_may_keep_what_retains_most_whatever_it_forgets():
    rule = selection.Rule(retained_first=True)
    figures = [(1.0, 0.9, False), (0.0, 0.7, True), (0.5, 0.9, False), (0.0, math.nan, True)]  # FA@1, retained, forgotten
    how = [{"accuracy": a, "retained": r, "forgotten": f, "margin": 0.0, "step": 1.0} for a, r, f in figures]
    order = sorted(range(4), key=lambda i: rule.preference(**how[i]))
    assert order == [3, 1, 0, 2]  # of equals the one that recognises less; what was not scored comes last
    assert max(range(4), key=lambda i: selection.STANDARD.preference(**how[i])) == 1 and "retains most" in rule.words


def test_without_candidates_there_is_no_winner():
    assert selection.winner([]) is None
    assert selection.winner([None]) is None


def test_a_candidate_without_preference_is_never_kept():
    barred = dataclasses.replace(scored(retain=0.99), preference=None)
    assert selection.winner([barred]) is None
    assert selection.winner([barred, scored(retain=0.1)]).retained == 0.1


def test_the_first_of_several_equals_is_kept():
    first = scored()
    assert selection.winner([first, scored()]) is first


def test_winner_without_forgetting_is_the_lowest_forget_accuracy():
    best = scored(forget=0.1, retain=0.2)
    assert selection.winner([scored(forget=0.3), best, scored(forget=0.5)]) == best


def test_ties_go_to_the_lower_margin_then_to_the_smaller_step():
    a, b, c = scored(margin=-1, step=1), scored(margin=-2, step=3), scored(margin=-2, step=2)
    assert selection.winner([a, b, c]) == c


@pytest.mark.parametrize(
    ("step", "forgets"),
    [
        (scored(forget=0.02), True),
        (scored(forget=0.03), False),
        (scored(margin=-0.2, spread=0.1), False),  # none recognised, but on the brink
        (scored(margin=-0.4, spread=0.1), True),
    ],
)
def test_forgetting_takes_a_margin(step, forgets):
    assert step.forgotten is forgets


def test_deepest_rule_takes_the_deepest_layer_that_forgets():
    order = ["a", "b", "c"].index
    rows = [scored("a", retain=0.9), scored("b", retain=0.5), scored("b", step=2, retain=0.6), scored("c", forget=0.4)]
    assert selection.deepest(rows, order) == rows[2]
    assert selection.deepest(rows[3:], order) == rows[3]


@pytest.mark.parametrize(("names", "k"), [(10177, 5), (100, 1), (4, 1), (2000, 1), (6000, 3)])
def test_rank_that_brackets_grows_with_the_number_of_names(names, k):
    assert selection.fa_rank(names) == k


def test_margins_that_are_not_known_do_not_speak_against_forgetting():
    assert selection.below(math.nan, math.nan, 3.5)


def test_a_row_begins_with_layer_and_step():
    assert scored("b", step=2.0, forget=0.5).row() == {"layer": "b", "step": 2.0, "forget": 0.5}


# ------------------------------------------------------------------------------------------------- nothing is forgotten


def test_where_nothing_forgets_the_highest_retained_accuracy_is_kept_not_the_lowest_margin():
    kind, harsh = scored(step=1, margin=-0.1, retain=0.9), scored(step=9, margin=-0.2, retain=0.1)
    assert not kind.forgotten and not harsh.forgotten
    assert selection.winner([harsh, kind]) is kind
    assert selection.winner([harsh, scored(step=2, forget=0.5, retain=0.99)]) is harsh  # forget accuracy comes first


def test_where_retained_accuracy_is_not_known_the_higher_margin_is_kept():
    kind, harsh = scored(step=9, margin=-0.1, retain=math.nan), scored(step=1, margin=-0.2, retain=math.nan)
    assert selection.winner([harsh, kind]) is kind


def test_retained_accuracy_is_scored_for_all_that_share_the_lowest_forget_accuracy():
    def of(step, **figures):
        return scored(f"layer {step}", step, retain=math.nan, margin=-0.1, **figures)

    curves, asked = {"a": [of(1, forget=0.5), of(2)], "b": [of(3), of(4)]}, []

    def score(edit):
        asked.append(edit.step)
        return scored(edit.layer, edit.step, margin=-0.1, retain={2: 0.3, 3: 0.8, 4: 0.5}[edit.step])

    known, best = selection.spare(curves, selection.winner([c for curve in curves.values() for c in curve]), score)
    assert asked == [2, 3, 4] and best.step == 3 and best is known["b"][0]
    assert known["a"][0] is curves["a"][0]


def test_a_winner_that_forgets_is_left_as_it_is():
    curves = {"a": [scored(retain=0.9), scored(forget=0.5, retain=math.nan)]}
    assert selection.spare(curves, curves["a"][0], None) == (curves, curves["a"][0])
    assert selection.spare({}, None, None) == ({}, None)


def test_a_fallback_is_unsettled_until_its_retained_accuracy_is_known():
    best = scored(forget=0.2, retain=0.5)
    for forget, wanted in ((0.1, True), (0.2, True), (0.3, False), (0.0, False)):
        assert selection.unsettled(scored(forget=forget, retain=math.nan, margin=-1), best) == wanted
    assert selection.unsettled(scored(forget=0.9, retain=math.nan), None)
    assert not selection.unsettled(scored(forget=0.1, retain=0.4), best)
    assert not selection.unsettled(scored(forget=0.1, retain=math.nan), scored())  # a candidate forgets
