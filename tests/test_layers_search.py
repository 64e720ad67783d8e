"""Which layers are tried, and how steps are found and chosen (traps 9 and 11)."""

import math
import re

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from slug.core import gradients, layers, losses, search, selection
from slug.core.selection import Step

# --------------------------------------------------------------------------------------------- importance and alignment


def test_figures_are_the_plain_formulas(clip):
    forget, _ = gradients.compute(clip, tiny.pairs(4, seed=1), losses.cosine_embedding)
    retain, _ = gradients.compute(clip, tiny.pairs(4, seed=2), losses.contrastive)
    rows = layers.figures(clip, forget, retain)
    assert [r.name for r in rows] == list(clip.candidates())
    for row in rows:
        f, r = forget[row.name].numpy().ravel(), retain[row.name].numpy().ravel()
        theta = clip.parameters[row.name].detach().numpy().ravel()
        assert row.importance == pytest.approx(math.sqrt((f**2).sum() / (theta**2).sum()), rel=1e-4)
        assert row.alignment == pytest.approx((f * r).sum() / math.sqrt((f**2).sum() * (r**2).sum()), rel=1e-3, abs=1e-5)


def test_first_step_changes_the_group_by_a_tenth():
    theta = [torch.full((3, 3), 2.0), torch.full((4,), 1.0)]
    grads = [torch.full((3, 3), 0.1), torch.full((4,), 0.5)]
    step = layers.first_step(theta, grads)
    assert step == pytest.approx(math.sqrt(36 + 4) / (10 * math.sqrt(0.09 + 1)))
    changed = torch.cat([(step * g).flatten() for g in grads]).norm() / torch.cat([t.flatten() for t in theta]).norm()
    assert changed == pytest.approx(0.1)


figure = st.one_of(st.integers(0, 4).map(float), st.floats(0, 1))  # integers, so that there are ties
layer = st.builds(
    layers.Layer, st.just("x"), st.sampled_from(["vision", "language"]), figure, st.one_of(figure, st.floats(-1, 1))
)


def beats(a, b):
    """Whether layer a is at least as good as b in both figures and better in one."""
    importance, alignment = a.importance - b.importance, abs(b.alignment) - abs(a.alignment)
    return importance >= 0 and alignment >= 0 and (importance > 0 or alignment > 0)


@given(st.lists(layer, max_size=30))
def test_pareto_front_is_what_no_layer_beats(rows):
    wanted = {(r.importance, abs(r.alignment)) for r in rows if not any(beats(other, r) for other in rows)}
    found = layers.pareto_front(rows)
    assert {(r.importance, abs(r.alignment)) for r in found} == wanted
    assert all(r in rows for r in found)
    assert [r.importance for r in found] == sorted((r.importance for r in found), reverse=True)


@given(st.lists(layer, max_size=30))
def test_fronts_come_off_one_after_the_other(rows):
    found = layers.all_fronts(rows)
    assert sorted(r for part in found for r in part) == sorted(rows)
    for i, part in enumerate(found):
        assert part == layers.pareto_front([r for later in found[i:] for r in later])


@given(st.lists(layer, max_size=30))
def test_encoders_are_ranked_apart(rows):
    found, two = layers.fronts(rows), layers.fronts(rows, 2)
    for encoder in ("vision", "language"):
        mine = [r for r in rows if r.encoder == encoder]
        assert found[encoder] == layers.pareto_front(mine)
        left = [r for r in mine if not any(r is f for f in found[encoder])]
        assert two[encoder] == found[encoder] + layers.pareto_front(left)


# ------------------------------------------------------------------------------------------- trap 11: finding the step


def steps_of(forgets, first, rule="robust", evaluations=10):
    """The history of one layer whose step s is forgotten where forgets(s): [(step, forgotten)]."""
    expected = []  # of each evaluation, the steps that were said to come next

    def evaluate(step, coming):
        assert step == coming[0] and len(coming) <= 7
        assert all(step in earlier for earlier in expected[-2:])
        expected.append(coming)
        return (step, forgets(step)), forgets(step)

    return list(search.over_layer(evaluate, first, rule=rule, evaluations=evaluations, depth=3))


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
        return [s for s, _ in search.over_layer(lambda s, _: ((s, 0), progress(s)), 1.0, evaluations=8, **reach)]

    reach = {"growth": 4, "far": 64, "below": False}
    assert history(lambda s: False, **reach) == [1, 4, 16, 64]
    assert history(lambda s: 1.0 if s >= 16 else 0.1, **reach)[:4] == [1, 4, 16, 8]
    # Nothing is enough, but 4 gets furthest: both sides of it are looked at.
    near = history(lambda s: 0.5 / (1 + abs(math.log2(s / 5))), **reach)
    assert near[:7] == pytest.approx([1, 4, 16, 64, 8, 2, 32**0.5]) and len(near) == 8
    assert min(abs(math.log2(s / 5)) for s in near[4:]) < 0.25


def test_a_group_that_got_no_further_than_its_first_step_is_looked_for_below_it():
    assert search.next_step([(1.0, 0.2), (2.0, 0.2), (4.0, 0.1)], 1.0, far=4) == 0.25
    assert search.next_step([(1.0, 0.2), (2.0, 0.2), (4.0, 0.1)], 1.0, far=4, below=False) is None


def test_robust_rule_stops_where_the_bracket_is_narrow():
    history = steps_of(lambda s: s >= 1.5, 1.0, evaluations=50)
    smallest = min(s for s, forgotten in history if forgotten)
    assert len(history) < 10 and smallest < 1.5 * search.CLOSE


def test_paper_rule_doubles_then_bisects():
    assert [s for s, _ in steps_of(lambda s: s >= 3, 1.0, rule="paper", evaluations=6)] == [1, 2, 4, 3, 2.5, 2.75]


# ----------------------------------------------------------------------------------------------- choosing among all steps


def scored(layer="a", step=1.0, forget=0.0, retain=0.9, margin=-1.0, spread=0.1):
    """A search.Step."""
    return Step(layer, step, forget, forget, retain, retain, retain, retain, margin=margin, margin_sd=spread)


def test_winner_is_the_best_retain_among_those_that_forget():
    best = scored(retain=0.8)
    assert selection.winner([scored(forget=0.3, retain=0.99), best, scored(retain=0.7), scored(retain=math.nan)]) == best
    assert selection.winner([]) is None


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
    assert step.forgets is forgets


def test_deepest_rule_takes_the_deepest_layer_that_forgets():
    order = ["a", "b", "c"].index
    rows = [scored("a", retain=0.9), scored("b", retain=0.5), scored("b", step=2, retain=0.6), scored("c", forget=0.4)]
    assert selection.deepest(rows, order) == rows[2]
    assert selection.deepest(rows[3:], order) == rows[3]


def test_depth_is_that_of_the_tower_however_a_model_lists_its_parameters(clip):
    """The projections are the last layers of both libraries' CLIPs; open_clip lists them first."""
    order = sorted(clip.candidates(), key=lambda n: layers.depth_order(clip, n))
    assert {n.removesuffix(".weight") for n in order[-2:]} in (
        {"visual.proj", "text_projection"},
        {"visual_projection", "text_projection"},
    )
    for tower in ("vision", "language"):
        found = (re.search(r"(?:resblocks|layers)\.(\d+)\.", n) for n in order if clip.tower(n) == tower)
        blocks = [int(f[1]) for f in found if f]
        assert blocks == sorted(blocks) and max(blocks) > 0


@pytest.mark.parametrize(("names", "k"), [(10177, 5), (100, 1), (4, 1), (2000, 1), (6000, 3)])
def test_rank_that_brackets_grows_with_the_number_of_names(names, k):
    assert selection.fa_rank(names) == k
