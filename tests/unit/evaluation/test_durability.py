"""Tests of durability: coarser weights, relearning, other spellings, the probe, and sums of features."""

import types

import pytest
import tiny
import torch
from plain_training import weights

from slug import schema
from slug.core.edit import Edit, Replacement
from slug.data.pairs import Pairs
from slug.evaluation import durability, zeroshot
from slug.evaluation.durability import Subject
from slug.methods import _training as training
from slug.settings import Data, Durability

# ------------------------------------------------------------------------------------------------------ coarser weights


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_what_a_plain_loop_does(bits):
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(bits))
    weight[2] = 0
    top = {8: 127, 4: 7}[bits]
    got = durability.round_to_nearest(weight, bits)
    for row, found in zip(weight.tolist(), got.tolist(), strict=True):
        scale = max(abs(x) for x in row) / top
        assert found == pytest.approx([scale * round(x / scale) if scale else 0 for x in row], rel=1e-5, abs=1e-7)
    assert not torch.equal(got, weight) and torch.equal(durability.round_to_nearest(weight.view(5, 1, 7), bits)[:, 0], got)


@pytest.mark.parametrize(("form", "levels"), [("int8", 255), ("4-bit", 15)])
def test_linear_weights_are_rounded_and_others_keep_their_values(clip, form, levels):
    before = weights(clip)
    with durability.quantised(clip, form).applied(clip):
        views = {n: v.flatten(1) for n, v in clip.canonical_views(weights(clip)).items() if v.ndim > 1}
        linear = [n for n in views if "embeddings" not in n or "patch" in n]
        # The output channels stand in front in canonical names: each has a scale of its own, projections too.
        assert all(len(row.unique()) <= levels for n in linear for row in views[n])
        assert any("text_projection" in n for n in linear) and any("visual_projection" in n for n in linear)
        kept = [n for n, p in before.items() if torch.equal(p, clip.parameters[n])]
        assert any("token_embedding" in n for n in kept) and any("bias" in n for n in kept)
        assert not any(n.endswith(("proj.weight", "in_proj_weight")) for n in kept)
    assert tiny.same_tensors(weights(clip), before)


def test_all_weights_are_rounded_to_half_precision(clip):
    before = weights(clip)
    with durability.quantised(clip, "fp16").applied(clip):
        assert all(torch.equal(p, before[n].half().float()) for n, p in clip.parameters.items())
    assert tiny.same_tensors(weights(clip), before)


# ----------------------------------------------------------------------------------------------------------- relearning


@pytest.fixture
def relearning(tiny_clip):
    """(untrained model, 12 forget pairs, 40 retain pairs)."""
    return tiny.load(tiny_clip), tiny.pairs(12, names=("ghost",)), tiny.pairs(40, seed=1)


def relearn(clip, forget, retain, **how):
    return durability.relearn(clip, forget, retain, **({"count": 0, "steps": 12, "lr": 1e-3} | how))


def test_relearning_yields_its_steps_and_leaves_the_model_as_it_was(relearning):
    clip = relearning[0]
    before = weights(clip)
    assert list(relearn(*relearning)) == list(range(1, 13))
    assert tiny.same_tensors(weights(clip), before)


def test_relearning_brings_pictures_and_captions_together(relearning):
    clip, forget, _ = relearning

    def distance():
        image, text = tiny.features(clip, Pairs(forget.images[:1], forget.captions[:1], [], 0))
        return (image - text).norm().item()

    start, before = distance(), weights(clip)
    for step in relearn(*relearning):
        if step == 10:
            assert distance() < start - 0.05
            break  # the generator is closed, as where a test fails in between
    assert tiny.same_tensors(weights(clip), before) and not any(p.requires_grad for p in clip.parameters.values())


def test_what_is_not_free_keeps_its_value(relearning):
    clip = relearning[0]
    before, free = weights(clip), next(n for n in clip.candidates())
    for _ in relearn(*relearning, steps=2, free=[free]):
        moved = {n for n, p in clip.parameters.items() if not torch.equal(p, before[n])}
        assert moved == {free}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_merged_weights_lie_between_the_edit_and_the_original(clip, share):
    name = next(n for n in clip.candidates())
    own = clip.parameters[name].detach().clone()
    changes = {name: torch.ones_like(own)}
    with durability.merged(clip, Edit(changes, name, 1.0), share).applied(clip):
        assert torch.allclose(clip.parameters[name], own + (1 - share))
    with durability.merged(clip, Replacement({name: torch.zeros_like(own)}), share).applied(clip):
        assert torch.allclose(clip.parameters[name], share * own)


@pytest.mark.parametrize(("count", "most"), [(2, 2), (0, durability.FORGET_PAIRS), (None, 0)])
def test_a_relearning_batch_holds_the_chosen_forget_pairs_and_fresh_retain_pairs(relearning, monkeypatch, count, most):
    asked, forget = [], relearning[1]
    monkeypatch.setattr(
        durability, "train", lambda _, passes, schedule, mask, each_step: asked.append((passes, schedule)) or []
    )
    list(relearn(*relearning, count=count, steps=6))
    ((passes, schedule),) = asked
    batches = [p.pairs.captions for p in passes]
    mine = [[c for c in b if c.startswith("ghost")] for b in batches]
    assert {len(m) for m in mine} == {most} and {len(b) for b in batches} == {durability.BATCH}
    if count is not None:
        chosen = {forget.captions[i] for i in durability.chosen_pairs(forget, count, 0).tolist()}
        assert len(chosen) == (count or 12) and set().union(*mine) <= chosen
    assert len({tuple(b) for b in batches}) == 6
    assert [training.cosine(s, 6, schedule) for s in range(6)] == [1e-3] * 6


# -------------------------------------------------------------------------------------------------- names and pictures


def test_other_spellings_are_others():
    found = durability.spellings("Police Officer", ["cop"])
    assert set(found.values()) == {
        *("police officer", "POLICE OFFICER", "Police Officers", "the Police Officer"),
        *("Police-Officer", "PoliceOfficer", "cop"),
    }


def test_a_spelling_that_is_the_name_itself_is_left_out():
    found = durability.spellings("fox")
    assert found["plural"] == "foxes" and not {"hyphen", "one word", "lower case"} & set(found)


@pytest.mark.parametrize(("group", "wanted"), [("tropical fish/noto", "noto"), ("000001.jpg", durability.NOT_TOLD)])
def test_the_style_of_a_source_image(group, wanted):
    assert durability.style_of(group) == wanted


@pytest.mark.parametrize("name", ["Alien", "Bento Box"])
def test_the_probe_is_tested_on_source_images_that_it_was_not_trained_on(open_clip_world, name):
    world, pairs = open_clip_world, tiny.pairs(4)
    masks = {"validation": world.masks, "test": {task: ~mask for task, mask in world.masks.items()}}
    target = world.evaluation.target(name)
    pictures = world.evaluation.tasks[target.task].pictures
    settings = Durability(data=Data(celeb_name=(name,)), retain_pictures=20)
    subject = Subject(world.evaluation, masks, target, pairs, pairs, settings)
    trained, tested = (
        {pictures.groups[i] for i in torch.cat([mine, subject.others[split]]).tolist()}
        for split, mine in (("validation", subject.known), ("test", subject.rows))
    )
    assert trained and tested and not trained & tested
    assert all((pictures.labels[r] != target.label).all() and len(r) <= 20 for r in subject.others.values())
    (row,) = subject.test(schema.PROBE, Edit())
    assert row["n_train"] == len(subject.known) and row["n"] == len(subject.rows)
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1


# -------------------------------------------------------------------------------------------------------------- sums


@pytest.fixture
def shifted():
    """(a function of picture features: the rows of arithmetic, the features of pictures that an edit moved away from all
    names by one vector, the vector); the name is a sum of two others."""
    g = torch.Generator().manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(6, 16, generator=g), dim=1)
    names[0] = torch.nn.functional.normalize(names[1] + 2 * names[2] + 0.05 * names[3].roll(1), dim=0)
    labels = torch.tensor([0] * 5 + [1, 2, 3, 4, 5] * 4)
    shift = 3 * torch.nn.functional.normalize(names[4] - names[0], dim=0)
    pictures = names[labels] + 0.05 * torch.randn(len(labels), 16, generator=g) + shift
    assert not (zeroshot.ranks(pictures[:5], names, labels[:5], torch.zeros(6)) < 1).any()

    class Told(Subject):
        def __init__(self, features):
            self.features = features
            self.target, self.task = types.SimpleNamespace(label=0), types.SimpleNamespace(weights=names)
            self.rows, self.others = torch.arange(5), {"validation": torch.arange(5, 25)}
            self.labels, self.blocks, self.groups = labels[:5], torch.zeros(6, dtype=torch.long), ["a"] * 5
            self.task.pictures = types.SimpleNamespace(seen=torch.zeros(25, dtype=torch.bool))

        def sides(self, rows):
            return self.features[rows].clone(), names.clone()

    return lambda features: {row["setting"]: row["value"] for row in Told(features).arithmetic()}, pictures, shift


def test_a_shift_of_all_pictures_is_undone(shifted):
    arithmetic, pictures, _ = shifted
    assert arithmetic(pictures) == {"shifted": 1, "rebuilt": 0}


def test_a_sum_of_other_names_stands_for_the_name(shifted):
    arithmetic, pictures, shift = shifted
    assert arithmetic(pictures - shift)["rebuilt"] == 1
