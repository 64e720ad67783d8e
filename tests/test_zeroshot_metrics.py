"""Zero-shot accuracy against the plain formulas, reuse against the plain way, the halves' judges, and the statistics."""

import math

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from slug.core import gradients, layers, losses, selection, slug
from slug.core.edit import applied, edit_of
from slug.data import evaluation_sets
from slug.data.pairs import Pairs
from slug.data.splits import validation_mask
from slug.errors import SlugError
from slug.evaluation import clip_judge, clip_tasks, membership, statistics, zeroshot

NAME = "alien"
TEXTS = [
    "a",
    "",
    "alien monster.",
    "a photo of a bento box on a plain background, isolated",
    "word " * 40,
    "2nd place medal",
]


# ------------------------------------------------------------------------------------------------------------ features


def test_trimmed_and_sorted_texts_have_the_features_of_full_padding(clip):
    found = zeroshot.text_features(clip, TEXTS, batch_size=2)
    with torch.no_grad():
        if clip.family == "hf":
            tokens = clip.tokenizer(
                TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
            ).input_ids
            plain = clip.module.text_projection(clip.module.text_model(input_ids=tokens).pooler_output)
        else:
            tokens = clip.tokenizer(TEXTS)
            plain = clip.module.encode_text(tokens)
    assert tokens.shape == (len(TEXTS), 24) and found.shape == (len(TEXTS), 24)
    assert (found - torch.nn.functional.normalize(plain, dim=-1)).abs().max() < 1e-6
    assert (found[0] - found[2]).norm() > 1e-2


def test_classifier_is_the_mean_of_unit_prompt_features(clip):
    names, templates = ["alien", "bento box", "ant"], zeroshot.object_templates()
    assert len(templates) == 7
    found = zeroshot.classifier(clip, names, templates, batch_size=4)
    for name, row in zip(names, found, strict=True):
        with torch.no_grad():
            mean = sum(clip.encode_text(clip.tokenize([t.format(name)]))[0] for t in templates)
        assert (row - mean / mean.norm()).abs().max() < 1e-6


def test_picture_features_do_not_depend_on_the_batch(clip):
    images = tiny.pairs(7).images
    found = zeroshot.image_features(clip, images, batch_size=3)
    with torch.no_grad():
        plain = clip.encode_image(images)
    assert (found - plain).abs().max() < 1e-6 and torch.allclose(found.norm(dim=1), torch.ones(7))


# ------------------------------------------------------------------------------------------------- ranks and accuracies


@given(st.integers(0, 1000), st.booleans())
def test_ranks_and_margins_are_the_plain_formulas(seed, ties):
    g = torch.Generator().manual_seed(seed)
    features, weights = torch.randn(8, 3, generator=g), torch.randn(9, 3, generator=g)
    if ties:  # of small integers, so that cosines are equal to the bit
        features, weights = features.round(), weights.round()
    labels, blocks = torch.randint(9, (8,), generator=g), torch.randint(2, (9,), generator=g)
    found = zeroshot.ranks(features, weights, labels, blocks).tolist()
    margins = zeroshot.margins(features, weights, labels, blocks).tolist()
    for i, label in enumerate(labels.tolist()):
        cosines = [float(features[i] @ w) for w in weights]
        rivals = [cosines[c] for c in range(9) if c != label and blocks[c] == blocks[label]]
        assert found[i] == sum(r >= cosines[label] for r in rivals)
        best = max(rivals, default=-math.inf)
        assert margins[i] == pytest.approx(cosines[label] - best, abs=1e-5)


def test_accuracies_are_those_of_topk():
    g = torch.Generator().manual_seed(0)
    features, weights, labels = torch.randn(200, 8, generator=g), torch.randn(20, 8, generator=g), torch.arange(200) % 20
    rank = zeroshot.ranks(features, weights, labels, torch.zeros(20))
    for k, found in zip((1, 5), zeroshot.accuracies(rank), strict=True):
        hit = ((features @ weights.T).topk(k).indices == labels[:, None]).any(1)
        assert found == pytest.approx(hit.float().mean().item())
    correct = int((rank < 1).sum())
    assert zeroshot.describe(rank).startswith(f"{correct / 200:.1%} ({correct}/200, ")


def test_a_model_that_gives_nan_knows_nothing():
    features, weights = torch.full((2, 3), torch.nan), torch.randn(9, 3)
    assert zeroshot.accuracies(zeroshot.ranks(features, weights, torch.tensor([0, 1]), torch.zeros(9))) == (0, 0)


# ------------------------------------------------------------------------------------ an edit, with and without reuse


class World:
    """The tiny world as a model of one family sees it, with the forget gradient of NAME."""

    def __init__(self, taught, world, family):
        self.clip = tiny.load(taught, family)
        self.pictures = [
            evaluation_sets.load_celeba(world / "celeba", self.clip.transform),
            evaluation_sets.load_imagenet(world / "ImageNet" / "val", self.clip.transform),
        ]
        self.evaluation = clip_tasks.Evaluation(self.clip, *self.pictures, batch_size=64)
        self.target = self.evaluation.target(NAME)
        tasks = dict(zip(("identities", "objects"), self.pictures, strict=True))
        self.split = {task: validation_mask(pictures, 0) for task, pictures in tasks.items()}
        rows = self.evaluation.rows("identities", label=self.target.label)
        self.pairs = Pairs(self.pictures[0].images[rows], [NAME] * len(rows), [str(i) for i in rows], 0)
        self.forget, _ = gradients.compute(self.clip, self.pairs, losses.cosine_embedding)
        self.retain, _ = gradients.compute(self.clip, tiny.pairs(16), losses.contrastive)

    def edit(self, layer, relative=0.3):
        """A step on a layer's group, as large a part of its weights as `relative`."""
        group = self.clip.group(layer)
        first = layers.first_step([self.clip.parameters[n] for n in group], [self.forget[n] for n in group])
        return edit_of(self.clip, layer, self.forget, 10 * relative * first)

    def judge(self, split=None, **more):
        return clip_judge.Judge(self.clip, self.evaluation, self.target, self.pairs, split or self.split, seed=0, **more)


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def world(request, taught_clip, tiny_world):
    return World(taught_clip, tiny_world, request.param)


@pytest.fixture(scope="module")
def open_clip_world(taught_clip, tiny_world):
    return World(taught_clip, tiny_world, "open_clip")


def test_the_taught_model_knows_its_world(world):
    for task, t in world.evaluation.tasks.items():
        assert zeroshot.accuracies(world.evaluation.ranks(task, torch.arange(len(t.pictures.labels)), None))[0] > 0.9


LAYERS = {  # open_clip -> Hugging Face
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks.1.mlp.c_fc.weight": "vision_model.encoder.layers.1.mlp.fc1.weight",
    "visual.transformer.resblocks.0.attn.in_proj_weight": "vision_model.encoder.layers.0.self_attn.v_proj.weight",
    "text_projection": "text_projection.weight",
}


@pytest.mark.parametrize("layer", LAYERS)
def test_an_edit_is_judged_as_by_a_model_built_anew(world, layer):
    """Whatever is reused (a side, the activations below a block) changes no prediction."""
    if world.clip.family == "hf":
        layer = LAYERS[layer]
    elif layer in ("visual.proj", "visual.transformer.resblocks.1.mlp.c_fc.weight"):
        assert world.clip.stage(layer) > 0
    with applied(world.clip, world.edit(layer, 3.0)):
        anew = clip_tasks.Evaluation(world.clip, *world.pictures, batch_size=64)
        for task, t in world.evaluation.tasks.items():
            rows = torch.arange(len(t.pictures.labels))
            world.evaluation.ranks(task, rows[::3], layer)  # some are known by now, others are not
            found, plain = world.evaluation.ranks(task, rows, layer), anew.ranks(task, rows, None)
            assert torch.equal(found, plain) and torch.equal(found, anew.ranks(task, rows, gradients.BOTH))
            assert not torch.equal(found, world.evaluation.ranks(task, rows, None))  # the edit does something
        judge, plain = world.judge(), clip_judge.Judge(world.clip, anew, world.target, world.pairs, world.split, seed=0)
        for name, rank in judge.ranks(layer).items():
            assert torch.equal(rank, plain.ranks(None)[name])
        found, wanted = judge.step(layer, 1.0, layer, log_all=True), plain.step(layer, 1.0, None, log_all=True)
        assert found[2:-1] == pytest.approx(wanted[2:-1], abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("layer", ["visual.proj", "text_projection"])
def test_stopping_early_hides_no_winner(open_clip_world, monkeypatch, layer):
    world, judge = open_clip_world, open_clip_world.judge()
    monkeypatch.setattr(clip_judge, "RETAIN_CHUNK", 8)
    with applied(world.clip, world.edit(layer, 3.0)):
        rank = judge.ranks(layer)
        wanted = {t: zeroshot.accuracies(rank[t])[0] for t in ("identities", "objects")}
        mean = sum(wanted.values()) / 2
        assert 0.1 < mean < 0.99
        for beat in (-math.inf, 0.0, mean):  # a tie is no less
            found = judge.retain(layer, beat)
            assert {t: found[f"{t}_acc1"] for t in wanted} == pytest.approx(wanted)
        assert judge.retain(layer, mean + 3e-6) == {}  # a tie has 1e-6


# --------------------------------------------------------------------------------------------- traps 9 and 10: the halves


def test_the_forgotten_pictures_leave_the_retain_mean_and_the_name_stays_a_class(open_clip_world):
    world, judge = open_clip_world, open_clip_world.judge()
    labels = world.pictures[0].labels
    assert set(labels[judge.forget_rows].tolist()) == {world.target.label}
    assert world.target.label not in labels[judge.retain_rows["identities"]].tolist()
    assert len(judge.forget_rows) + len(judge.retain_rows["identities"]) == int(world.split["identities"].sum())
    assert len(judge.retain_rows["objects"]) == int(world.split["objects"].sum())
    # Were the name no class any more, a picture could not be taken for it.
    task, other = world.evaluation.tasks["identities"], (world.target.label + 1) % 4
    before = task.weights.clone()
    try:
        task.weights[world.target.label] = before[other]
        rank = world.evaluation.ranks("identities", judge.retain_rows["identities"], None)
        mine = labels[judge.retain_rows["identities"]] == other
        assert (rank[mine] >= 1).all() and (rank[~mine] < 1).any()
    finally:
        task.weights.copy_(before)


def test_retain_pictures_are_limited_within_the_half(open_clip_world):
    judge = open_clip_world.judge(limit=5)
    for task, rows in judge.retain_rows.items():
        assert len(rows) == 5 and open_clip_world.split[task][rows].all()
    assert torch.equal(judge.retain_rows["objects"], open_clip_world.judge(limit=5).retain_rows["objects"])
    assert len(judge.forget_rows) > 5


def test_a_half_without_the_name_is_refused(open_clip_world):
    none = {task: torch.zeros_like(mask) for task, mask in open_clip_world.split.items()}
    with pytest.raises(SlugError, match="no picture of alien"):
        open_clip_world.judge(none)


def searched(world, pictures):
    """(winner, all steps) of the search on the validation split of these pictures, without times."""
    evaluation = clip_tasks.Evaluation(world.clip, *pictures, batch_size=64)
    judge = clip_judge.Judge(world.clip, evaluation, world.target, world.pairs, world.split, seed=0, limit=20)
    rows = layers.fronts(layers.figures(world.clip, world.forget, world.retain))
    front = [*rows["vision"][:2], *rows["language"][:2]]
    curves, best = slug.search_all(world.clip, judge, front, world.forget, evaluations=5)
    return best._replace(seconds=0), {n: [s._replace(seconds=0) for s in steps] for n, steps in curves.items()}


def with_noise(world, where):
    """The world's pictures, those of the half `where` replaced by noise."""
    out = []
    for pictures, mask in zip(world.pictures, world.split.values(), strict=True):
        images = pictures.images.clone()
        g = torch.Generator().manual_seed(0)
        hit = mask if where == "validation" else ~mask
        images[hit] = torch.randint(0, 256, images[hit].shape, dtype=torch.uint8, generator=g)
        out.append(pictures._replace(images=images))
    return out


def test_report_pictures_have_no_say_in_the_search(open_clip_world):
    best, curves = searched(open_clip_world, open_clip_world.pictures)
    assert best.forgets and len({s.step for s in curves[best.layer]}) > 1
    again, same = searched(open_clip_world, with_noise(open_clip_world, "test"))
    assert repr(again) == repr(best) and repr(same) == repr(curves)  # repr: NaN where not evaluated
    _, other = searched(open_clip_world, with_noise(open_clip_world, "validation"))
    assert repr(other) != repr(curves)


def test_report_pictures_have_no_say_in_membership(open_clip_world):
    world = open_clip_world
    found = []
    for pictures in (world.pictures, with_noise(world, "test"), with_noise(world, "validation")):
        evaluation = clip_tasks.Evaluation(world.clip, *pictures, batch_size=64)
        found.append(membership.membership(world.clip, evaluation, world.target, world.pairs, world.split, None, 0))
    assert found[0] == found[1] != found[2]


def test_each_group_of_tensors_is_searched_once(world):
    rows = layers.figures(world.clip, world.forget, world.retain)
    curves, _ = slug.search_all(world.clip, world.judge(limit=5), rows, world.forget, evaluations=1)
    groups = [world.clip.group(name) for name in curves]
    assert len(set(groups)) == len(groups) and set(groups) == {world.clip.group(r.name) for r in rows}
    how = {"fronts": 99, "desc": "", "evaluations": 1}
    steps, _ = slug.search_fronts(world.clip, world.judge(limit=5), rows, world.forget, lambda _: False, **how)
    assert sorted(world.clip.group(s.layer) for s in steps) == sorted(groups)  # also where two fronts hold parts of one


def test_the_order_of_the_layers_does_not_change_the_winner(world):
    rows = [r for r in layers.figures(world.clip, world.forget, world.retain) if r.encoder == "vision"]
    how = {"fronts": 1, "desc": "", "evaluations": 4}
    judges = [world.judge(limit=40) for _ in range(2)]
    (steps, best), (deep, same) = (
        slug.search_fronts(world.clip, judge, rows, world.forget, lambda _: True, deepest_first=first, **how)
        for judge, first in zip(judges, (False, True), strict=True)
    )
    depths = [layers.depth_order(world.clip, n) for n in dict.fromkeys(s.layer for s in deep)]
    assert depths == sorted(depths, reverse=True) and len(depths) > 1
    assert len(deep) == len(steps) and (world.clip.group(same.layer), same.step) == (world.clip.group(best.layer), best.step)


def test_search_leaves_the_model_as_it_was(open_clip_world):
    before = {n: p.clone() for n, p in open_clip_world.clip.parameters.items()}
    searched(open_clip_world, open_clip_world.pictures)
    assert all(torch.equal(p, before[n]) for n, p in open_clip_world.clip.parameters.items())


def test_a_name_nobody_has_is_refused(open_clip_world):
    assert open_clip_world.evaluation.target("Alien_Monster").label != open_clip_world.target.label
    assert open_clip_world.evaluation.target("BENTO_box") == ("BENTO box", "object", "objects", 6)
    with pytest.raises(SlugError, match="Nobody Atall"):
        open_clip_world.evaluation.target("Nobody_Atall")


# ----------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(("correct", "total"), [(1, 10), (5, 10), (9, 10), (466, 500)])
def test_interval_is_clopper_and_pearson(correct, total):
    low, high = statistics.interval(correct, total)
    assert low < correct / total < high
    assert stats.binom.sf(correct - 1, total, low) == pytest.approx(0.025)
    assert stats.binom.cdf(correct, total, high) == pytest.approx(0.025)


def test_a_zero_carries_its_one_sided_bound():
    assert statistics.interval(0, 59) == (0, pytest.approx(1 - 0.05 ** (1 / 59)))
    assert statistics.interval(10, 10) == (pytest.approx(0.05**0.1), 1)
    assert statistics.interval(0, 0) == (0, 1)


def test_paired_difference():
    rng = np.random.default_rng(0)
    before = rng.random(400) < 0.8
    after = np.where(rng.random(400) < 0.1, False, before)
    single, grouped = np.arange(400), np.arange(400) // 40
    mean, low, high = statistics.paired_difference(before, after, single)
    assert mean == pytest.approx(after.mean() - before.mean())
    error = (after.astype(float) - before).std() / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.01) and high == pytest.approx(mean + 1.96 * error, abs=0.01)
    assert statistics.paired_difference(before, before, single) == (0, 0, 0)
    assert statistics.paired_difference(before, after, single) == (mean, low, high)  # the same seed
    # Pictures that change together by group leave more to chance than as many that change each by itself.
    together = np.where(grouped == 3, False, before)
    wide, narrow = (np.ptp(statistics.paired_difference(before, together, groups)[1:]) for groups in (grouped, single))
    assert wide > 2 * narrow


@pytest.mark.parametrize("others", [80, 300])
def test_membership_inference_is_chance_for_alike_and_certain_for_apart(others):
    rng = np.random.default_rng(0)
    mean, deviation = membership.membership_inference(rng.normal(0.2, 0.01, 80), rng.normal(0.2, 0.01, others))
    assert 42 < mean < 58 and 0 < deviation < 20
    mean, deviation = membership.membership_inference(rng.normal(0.3, 0.01, 80), rng.normal(0.2, 0.01, others))
    assert mean > 99 and deviation < 3
    assert all(map(math.isnan, membership.membership_inference([0.1], rng.normal(size=others))))


def test_membership_inference_is_seeded():
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.21, 0.01, 60), rng.normal(0.2, 0.01, 60)
    first = membership.membership_inference(members, others, seed=1)
    assert (
        first == membership.membership_inference(members, others, seed=1) != membership.membership_inference(members, others)
    )


def test_steps_that_are_not_evaluated_do_not_win():
    rows = [
        selection.Step("a", 1.0, 0.0, 0.0, margin=-1, margin_sd=0),
        selection.Step("b", 2.0, 0.5, 0.5, margin=1, margin_sd=0),
    ]
    assert selection.winner(rows) == rows[0] and selection.winner(rows[1:]) == rows[1]
