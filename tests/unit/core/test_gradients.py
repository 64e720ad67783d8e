"""Gradients against plain autograd, batch by batch, and against finite differences."""

import copy

import plain
import pytest
import tiny
import torch

from slug.core import gradients, losses
from slug.errors import SlugError

LOSSES = (losses.cosine_embedding, losses.contrastive)


def test_cosine_gradient_weighs_batches_by_their_pairs(clip):
    batch = tiny.pairs(10)
    found, figures = gradients.compute(clip, batch, losses.cosine_embedding, batch_size=4)
    one_by_one = plain.by_batch(clip, batch, losses.cosine_embedding, [4, 8, 10])
    wanted = plain.mean(one_by_one, [4, 4, 2])
    assert plain.distance(found, wanted) < 1e-5
    assert figures["pairs"] == 10
    # With gradients not zeroed between batches the sum would hold the first batch three times; unweighted, the last twice.
    assert plain.distance(plain.mean(one_by_one, [12, 8, 2]), wanted) > 1e-2
    assert plain.distance(plain.mean(one_by_one, [1, 1, 1]), wanted) > 1e-2


def test_contrastive_gradient_is_the_mean_of_whole_batches(clip):
    batch = tiny.pairs(10)
    found, figures = gradients.compute(clip, batch, losses.contrastive, batch_size=4)
    one_by_one = plain.by_batch(clip, batch, losses.contrastive, [4, 8, 10])
    wanted = plain.mean(one_by_one[:2], [1, 1])
    assert plain.distance(found, wanted) < 1e-5
    assert figures["pairs"] == 8
    assert plain.distance(plain.mean(one_by_one[:2], [2, 1]), wanted) > 1e-2
    assert plain.distance(plain.mean(one_by_one, [1, 1, 1]), wanted) > 1e-2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_set_smaller_than_a_batch_is_one_batch(clip, loss):
    batch = tiny.pairs(3)
    found, figures = gradients.compute(clip, batch, loss, batch_size=16)
    assert plain.distance(found, plain.gradient(clip, batch, loss)) < 1e-5
    assert figures["loss"] == pytest.approx(plain.loss(clip, clip.module, batch, loss).item(), abs=1e-5)


def test_importance_is_the_mean_of_squared_batch_gradients(clip):
    batch = tiny.pairs(8)
    found, _ = gradients.compute(clip, batch, losses.contrastive, batch_size=4, square=True)
    one_by_one = plain.by_batch(clip, batch, losses.contrastive, [4, 8])
    wanted = plain.mean([{n: t**2 for n, t in g.items()} for g in one_by_one], [1, 1])
    assert plain.distance(found, wanted) < 1e-5


def test_a_gradient_does_not_depend_on_an_earlier_one(clip):
    forget, retain = tiny.pairs(5, seed=1), tiny.pairs(8, seed=2)
    alone, _ = gradients.compute(clip, retain, losses.contrastive, batch_size=4)
    gradients.compute(clip, forget, losses.cosine_embedding, batch_size=4)
    after, _ = gradients.compute(clip, retain, losses.contrastive, batch_size=4)
    assert tiny.same_tensors(alone, after)


def test_a_gradient_pass_leaves_the_model_as_it_was(clip):
    before = {n: p.clone() for n, p in clip.parameters.items()}
    gradients.compute(clip, tiny.pairs(5), losses.cosine_embedding, batch_size=4)
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters.values())
    assert all(torch.equal(p, before[n]) for n, p in clip.parameters.items())
    assert not clip.module.training


@pytest.mark.parametrize(
    ("n", "drop_last", "sizes"), [(10, True, [4, 4]), (10, False, [4, 4, 2]), (3, True, [3]), (8, True, [4, 4])]
)
def test_a_short_last_batch_is_dropped_where_asked_to(n, drop_last, sizes):
    batches = gradients.batch_indices(n, 4, drop_last=drop_last)
    assert [len(b) for b in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(sum(sizes)))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_agrees_with_finite_differences(clip, loss):
    batch = tiny.pairs(5)
    found, _ = gradients.compute(clip, batch, loss, batch_size=5)
    module = copy.deepcopy(clip.module).double().requires_grad_(False)
    parameters = dict(module.named_parameters())
    g = torch.Generator().manual_seed(0)
    names = [n for n in clip.candidates() if n.endswith(("proj.weight", "in_proj_weight", "projection", "conv1.weight"))]
    assert len(names) > 5
    for name in names:
        direction = torch.randn(found[name].shape, generator=g).double() + 3 * found[name].double() / found[name].norm()
        direction /= direction.norm()
        values = []
        for step in (1e-4, -2e-4):  # moves to +1e-4, then to -1e-4
            parameters[name] += step * direction
            values.append(plain.loss(clip, module, batch, loss).item())
        parameters[name] += 1e-4 * direction
        slope = (values[0] - values[1]) / 2e-4
        assert slope == pytest.approx((found[name].double() * direction).sum().item(), rel=1e-3, abs=1e-6), name


def test_both_families_have_the_same_gradients(tiny_clip):
    found = []
    for family in tiny.FAMILIES:
        clip = tiny.load(tiny_clip, family)
        grads, _ = gradients.compute(clip, tiny.pairs(5), losses.cosine_embedding)
        found.append({n: t.contiguous() for n, t in clip.canonical_views(grads).items()})
    assert plain.distance(*found) < 1e-4


def test_checkpointing_changes_no_gradient_and_keeps_less(clip):
    """Only what enters each stage is kept for the backward pass, which computes the rest again."""
    pairs, found, kept = tiny.pairs(8), [], []
    for clip.checkpointing in (False, True):
        found.append(gradients.compute(clip, pairs, losses.contrastive, batch_size=8)[0])
        sizes = {}
        clip.module.requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.update({t.data_ptr(): t.nbytes}), lambda t: t
        ):
            clip.encode_image(pairs.images)
        kept.append(sum(sizes.values()))
        clip.module.requires_grad_(False)
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, rtol=1e-5, atol=1e-7), name
    assert kept[1] < kept[0] / 3


def test_nan_is_refused_by_name(tiny_clip):
    clip = tiny.load(tiny_clip)
    clip.parameters["visual.proj"][0, 0] = torch.nan
    with pytest.raises(SlugError, match="NaN"):
        gradients.compute(clip, tiny.pairs(4), losses.cosine_embedding)


@pytest.mark.parametrize("encoder", ["vision", "language"])
def test_the_gradient_of_one_encoder_is_that_part_of_the_whole(clip, encoder):
    batch = tiny.pairs(5)
    whole, _ = gradients.compute(clip, batch, losses.contrastive)
    found, _ = gradients.compute(clip, batch, losses.contrastive, encoder=encoder)
    assert found.keys() == {n for n in whole if clip.tower(n) == encoder}
    assert plain.distance(found, {n: whole[n] for n in found}) < 1e-6


@pytest.mark.parametrize(("pairs", "batch_size"), [(4, 1), (1, 16), (1, 1)])
def test_a_contrastive_gradient_of_single_pairs_is_refused(clip, pairs, batch_size):
    with pytest.raises(SlugError, match="the contrastive gradient of one pair is 0: retain set: gradient has"):
        how = {"batch_size": batch_size, "desc": "retain set: gradient"}
        gradients.compute(clip, tiny.pairs(pairs), losses.contrastive, **how)


def test_a_last_batch_of_one_pair_is_fine_where_there_are_others(clip):
    _, figures = gradients.compute(clip, tiny.pairs(5), losses.contrastive, batch_size=4)
    assert figures["pairs"] == 4
    gradients.compute(clip, tiny.pairs(1), losses.cosine_embedding, batch_size=1)


@pytest.mark.parametrize("loss", [losses.cosine_embedding, losses.contrastive])
def test_several_batches_in_one_pass_have_the_gradient_of_one_after_another(clip, monkeypatch, loss):
    """With a short last batch, and without one."""
    for count in (16, 11):
        some, found, passes = tiny.pairs(count), {}, {}
        for most in (1, 100):
            monkeypatch.setattr(gradients, "PAIRS", most)
            seen = []
            encode = type(clip).encode_image
            monkeypatch.setattr(
                clip, "encode_image", lambda x, seen=seen, encode=encode: seen.append(len(x)) or encode(clip, x)
            )
            found[most], figures = gradients.compute(clip, some, loss, batch_size=4)
            passes[most] = len(seen), figures["pairs"], round(figures["loss"], 5)
        assert passes[1][0] > passes[100][0] == 1 and passes[1][1:] == passes[100][1:]
        for name, g in found[1].items():
            assert torch.allclose(g, found[100][name], rtol=1e-4, atol=1e-6 * float(g.abs().max() + 1)), name


def test_squares_of_batches_are_taken_batch_by_batch(clip, monkeypatch):
    monkeypatch.setattr(gradients, "_together", lambda *_: 1 / 0)
    gradients.compute(clip, tiny.pairs(8), losses.contrastive, batch_size=4, square=True)


@pytest.mark.parametrize("left_out", [list(range(2, 8)), list(range(7))], ids=["two left", "one left"])
def test_no_more_pairs_than_are_allowed_go_at_once_where_a_first_batch_is_short(clip, monkeypatch, left_out):
    """Without some pairs the first batch that is computed again may be short; those after it are as long as ever."""
    pairs, seen, encode = tiny.pairs(40), [], type(clip).encode_image
    whole, figures = gradients.compute(clip, pairs, losses.contrastive, batch_size=8)
    monkeypatch.setattr(gradients, "PAIRS", 16)
    monkeypatch.setattr(clip, "encode_image", lambda x: seen.append(len(x)) or encode(clip, x))
    rows = [*left_out, 8, 16, 24, 32]
    found, _ = gradients.without(clip, pairs, rows, whole, figures)
    assert max(seen) <= 16
    monkeypatch.setattr(gradients, "PAIRS", 1)
    expected, _ = gradients.without(clip, pairs, rows, whole, figures)
    for name, g in expected.items():
        assert torch.allclose(g, found[name], rtol=1e-3, atol=1e-5 * float(g.abs().max() + 1e-3)), name
