"""Which layers may be edited, their figures, Pareto fronts, groups and depth."""

import math
import re

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from slug.core import gradients, layers, losses
from slug.models.canonical import ALONE


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


def test_a_member_of_a_group_may_move_alone(tiny_clip):
    clip = tiny.load(tiny_clip, "hugging_face")
    name = "text_model.encoder.layers.1.self_attn.q_proj.weight"
    front = [layers.Layer(name, "language", 1.0, 0.0)]
    found = dict(layers.groups(clip, front, alone=True, together=False))
    assert found == {name: clip.group(name), name + ALONE: (name,)}


def test_layers_may_move_together(clip):
    names = list(clip.candidates())[:3]
    front = [layers.Layer(n, clip.tower(n), 1.0, 0.0) for n in names]
    ((name, group),) = layers.groups(clip, front, alone=False, together=True)
    assert name == layers.TOGETHER
    assert set(group) == {m for n in names for m in clip.group(n)}


def test_a_layer_without_forget_gradient_is_left_out(clip):
    names = list(clip.candidates())
    gradient = {n: torch.ones_like(p) for n, p in clip.parameters.items()}
    gradient[names[0]] = torch.zeros_like(gradient[names[0]])
    assert [r.name for r in layers.figures(clip, gradient, gradient)] == names[1:]


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
