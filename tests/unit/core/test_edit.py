"""Edits: values that add, scale, and apply within a context; a revert is exact."""

import pytest
import tiny
import torch

from slug.core import gradients, losses
from slug.core.edit import Edit, InPlace, Replacement, kept, total


@pytest.fixture
def model(tiny_clip):
    """A tiny CLIP of the Hugging Face family, whose groups have several members."""
    return tiny.load(tiny_clip, "hugging_face")


@pytest.fixture
def names(model):
    return list(model.candidates())[:2]


@pytest.fixture
def base(model):
    return {n: p.detach().clone() for n, p in model.parameters.items()}


def random_edit(model, names, seed=0, **more):
    g = torch.Generator().manual_seed(seed)
    return Edit({n: torch.randn(model.parameters[n].shape, generator=g) for n in names}, **more)


def unchanged(model, base):
    return all(torch.equal(p, base[n]) for n, p in model.parameters.items())


# ---------------------------------------------------------------------------------------------------------- application


def test_an_edit_adds_its_changes(model, names, base):
    edit = random_edit(model, names)
    with edit.applied(model):
        assert all(torch.equal(model.parameters[n], base[n] + edit.changes[n]) for n in names)


def test_a_revert_is_exact_to_the_bit(model, names, base):
    with random_edit(model, names).applied(model):
        assert not unchanged(model, base)
    assert unchanged(model, base)


def test_an_edit_is_reverted_after_an_error(model, names, base):
    with pytest.raises(ZeroDivisionError), random_edit(model, names).applied(model):
        raise ZeroDivisionError
    assert unchanged(model, base)


def test_edits_nest(model, names, base):
    first, second = random_edit(model, names), random_edit(model, names[:1], seed=1)
    with first.applied(model):
        inner = {n: model.parameters[n].clone() for n in names}
        with second.applied(model):
            assert torch.equal(model.parameters[names[0]], inner[names[0]] + second.changes[names[0]])
        assert all(torch.equal(model.parameters[n], inner[n]) for n in names)
    assert unchanged(model, base)


def test_an_empty_edit_changes_nothing(model, base):
    with Edit().applied(model):
        assert unchanged(model, base)


def test_a_replacement_gives_new_values(model, names):
    values = {n: torch.full_like(model.parameters[n], 0.5) for n in names}
    with Replacement(values).applied(model):
        assert all(torch.equal(model.parameters[n], values[n]) for n in names)


def test_a_replacement_is_reverted(model, names, base):
    with Replacement({n: torch.zeros_like(model.parameters[n]) for n in names}).applied(model):
        pass
    assert unchanged(model, base)


def test_an_edit_in_place_leaves_the_model_as_it_is(model, names, base):
    with torch.no_grad():
        model.parameters[names[0]].add_(1.0)
    edit = InPlace.of(model, "ft", 3)
    with edit.applied(model):
        assert torch.equal(model.parameters[names[0]], base[names[0]] + 1.0)
    assert torch.equal(model.parameters[names[0]], base[names[0]] + 1.0)
    assert (edit.layer, edit.step, set(edit.changes)) == ("ft", 3, set(model.parameters))


# ------------------------------------------------------------------------------------------------------- one SLUG step


def test_an_edit_in_place_names_what_differs_from_the_weights_given(model, names, base):
    with kept(model, names[:1]), torch.no_grad():
        model.parameters[names[0]].add_(1)
        assert set(InPlace.of(model, "ft", 3, base).changes) == {names[0]}


def test_a_step_is_the_step_size_times_the_gradient_of_the_whole_group(clip):
    forget, _ = gradients.compute(clip, tiny.pairs(4), losses.cosine_embedding)
    for layer in clip.candidates():
        edit = Edit.along(clip, layer, forget, 2.5)
        assert tuple(edit.changes) == clip.group(layer)
        assert all(torch.equal(t, 2.5 * forget[n]) for n, t in edit.changes.items())
        assert (edit.layer, edit.step) == (layer, 2.5)


def test_many_steps_share_one_gradient(model, names):
    gradient = {n: torch.ones_like(model.parameters[n]) for n in names}
    edits = [Edit.along(model, "layer", gradient, step, names) for step in (1.0, 2.0)]
    assert all(e.changes.tensors is gradient for e in edits)
    assert [float(e.changes[names[0]].flatten()[0]) for e in edits] == [1.0, 2.0]


def test_a_step_may_name_its_parameters(model, names):
    forget = {n: torch.ones_like(p) for n, p in model.parameters.items()}
    edit = Edit.along(model, "together", forget, 1.0, names)
    assert (edit.layer, list(edit.changes)) == ("together", names)


# --------------------------------------------------------------------------------------------------------- arithmetic


def test_a_scaled_edit_has_a_longer_step(model, names):
    edit = random_edit(model, names, layer="l", step=2.0)
    scaled = edit.scaled(1.5)
    assert (scaled.layer, scaled.step) == ("l", 3.0)
    assert all(torch.equal(scaled.changes[n], 1.5 * t) for n, t in edit.changes.items())


def test_an_edit_scaled_by_zero_changes_nothing(model, names):
    scaled = random_edit(model, names, layer="l", step=2.0).scaled(0)
    assert (dict(scaled.changes), scaled.step) == ({}, 0)


def test_a_sum_adds_changes_where_edits_share_a_parameter(model, names):
    first, second = random_edit(model, names, layer="a", step=1.0), random_edit(model, names[:1], 1, layer="b", step=2.0)
    both = first + second
    assert torch.equal(both.changes[names[0]], first.changes[names[0]] + second.changes[names[0]])
    assert torch.equal(both.changes[names[1]], first.changes[names[1]])
    assert (both.layer, both.step) == ("a + b", 2.0)


def test_a_sum_leaves_its_parts_as_they_were(model, names):
    first, second = random_edit(model, names), random_edit(model, names, 1)
    before = {n: t.clone() for n, t in first.changes.items()}
    _ = first + second
    assert tiny.same_tensors(dict(first.changes), before)


def test_a_total_is_the_weighted_sum(model, names):
    edits = [random_edit(model, names, seed) for seed in (0, 1, 2)]
    found = total(edits, [1.0, 0.0, 0.5])
    for n in names:
        assert torch.equal(found.changes[n], edits[0].changes[n] + 0.5 * edits[2].changes[n])


def test_a_total_of_nothing_is_an_empty_edit():
    assert not total([]).changes
