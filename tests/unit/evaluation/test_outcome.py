"""What an edit comes to on both splits."""

import math

import pytest
import torch

from slug.core.edit import Edit
from slug.evaluation import outcome, statistics, zeroshot

SPLITS = ("validation", "test")


@pytest.fixture(scope="module")
def evaluators(open_clip_world):
    """{split: ClipEvaluator} of NAME."""
    masks = {"validation": open_clip_world.masks, "test": {t: ~m for t, m in open_clip_world.masks.items()}}
    return {split: open_clip_world.evaluator(masks[split]) for split in SPLITS}


@pytest.fixture(scope="module")
def edit(open_clip_world):
    return open_clip_world.edit("visual.proj", 3.0)


@pytest.fixture(scope="module")
def splits(evaluators, edit):
    return outcome.on_splits(evaluators, edit, "slug", 0)


def test_both_states_are_reported_on_both_splits(splits):
    assert {s: list(states) for s, states in splits.items()} == {s: ["original", "slug"] for s in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_accuracies_are_of_the_splits_own_pictures(open_clip_world, evaluators, edit, splits, split):
    evaluation, evaluator = open_clip_world.evaluation, evaluators[split]
    with evaluation.carrying(edit):
        wanted = zeroshot.accuracies(evaluation.ranks("objects", evaluator.retain_rows["objects"]))
        forget = evaluation.ranks("identities", evaluator.forget_rows)
    found = splits[split]["slug"]
    assert (found["objects_acc1"], found["objects_acc5"]) == pytest.approx(wanted)
    assert found["forget_acc1"] == pytest.approx((forget < 1).float().mean().item())
    assert found["n_forget"] == len(forget) and found["n_objects"] == len(evaluator.retain_rows["objects"])
    assert found["forget_upper"] == statistics.interval(int((forget < 1).sum()), len(forget))[1]


def test_source_images_are_counted_once(open_clip_world, evaluators, splits):
    groups = open_clip_world.sets[0].pictures.groups
    wanted = {groups[i] for i in evaluators["test"].forget_rows.tolist()}
    assert splits["test"]["original"]["n_drawings"] == len(wanted) < splits["test"]["original"]["n_forget"]
    hits = open_clip_world.evaluation.ranks("identities", evaluators["test"].forget_rows) < 1
    known = {groups[i] for i, hit in zip(evaluators["test"].forget_rows.tolist(), hits.tolist(), strict=True) if hit}
    found = splits["test"]["original"]
    assert found["sources_recognised"] == len(known)
    assert found["forget_upper_sources"] == statistics.interval(len(known), len(wanted))[1]


def test_changes_are_paired_by_picture(splits):
    for states in splits.values():
        before, after = states["original"], states["slug"]
        for task in ("identities", "objects"):
            assert after[f"{task}_change"] == pytest.approx(after[f"{task}_acc1"] - before[f"{task}_acc1"])
            assert after[f"{task}_change_low"] <= after[f"{task}_change"] <= after[f"{task}_change_high"]
        assert "objects_change" not in before


def test_one_tower_alone_tells_what_was_lost(evaluators, splits):
    """An edit of the vision tower leaves the names alone."""
    for split, states in splits.items():
        assert states["slug"]["forget_vision_acc1"] == pytest.approx(states["slug"]["forget_acc1"])
        assert states["slug"]["forget_language_acc1"] == pytest.approx(states["original"]["forget_acc1"]), split
        assert "forget_vision_acc1" not in states["original"]


def test_the_name_is_placed_among_all_names_by_its_cosine(open_clip_world, evaluators, edit, splits):
    """A plain second computation from the features of each picture."""
    evaluation, evaluator = open_clip_world.evaluation, evaluators["test"]
    label = evaluator.target.label
    with evaluation.carrying(edit):
        features, weights = (t.clone() for t in evaluation.sides("identities", evaluator.forget_rows))
    cosines = features @ weights.T
    places = [1 + sum(bool(c >= row[label]) for k, c in enumerate(row) if k != label) for row in cosines]
    found = splits["test"]["slug"]
    assert found["forget_cos"] == pytest.approx(cosines[:, label].mean().item(), abs=1e-6)
    assert found["forget_rank"] == torch.tensor(places).float().median().item()
    assert found["forget_cos"] < splits["test"]["original"]["forget_cos"]


@pytest.mark.parametrize("split", SPLITS)
def test_neighbours_are_the_nearest_names_that_have_pictures(open_clip_world, evaluators, edit, splits, split):
    evaluation, evaluator = open_clip_world.evaluation, evaluators[split]
    task, rows = evaluation.tasks["identities"], evaluator.retain_rows["identities"]
    cosines = task.weights @ task.weights[evaluator.target.label]
    shown = {int(label) for label in task.pictures.labels[rows]}
    for count in (1, 3, 1000):
        wanted = sorted(shown, key=lambda c: -cosines[c].item())[:count]
        found = outcome.neighbour_rows(evaluator, count)
        assert found.tolist() == [i for i, r in enumerate(rows.tolist()) if int(task.pictures.labels[r]) in wanted]
    with evaluation.carrying(edit):
        ranks = evaluation.ranks("identities", rows)[outcome.neighbour_rows(evaluator)]
    row = splits[split]["slug"]
    assert (row["n_neighbours"], row["neighbours_acc1"]) == (len(ranks), pytest.approx((ranks < 1).float().mean().item()))


def test_an_edit_that_changes_nothing_changes_no_figure(evaluators):
    for states in outcome.on_splits(evaluators, Edit(), "slug", 0).values():
        assert all(states["slug"][k] == pytest.approx(v, nan_ok=True) for k, v in states["original"].items())
        assert states["slug"]["identities_change"] == states["slug"]["objects_change_high"] == 0


def test_seen_and_unseen_pictures_are_weighed_to_the_whole(splits):
    found = splits["test"]["slug"]
    unseen = found["n_forget_unseen"]
    seen = found["n_forget"] - unseen
    parts = (found["forget_seen_acc1"], seen), (found["forget_unseen_acc1"], unseen)
    assert sum(a * n for a, n in parts if n and not math.isnan(a)) == pytest.approx(found["forget_acc1"] * found["n_forget"])


def test_similarities_are_cosines_of_mean_features_and_prompts(open_clip_world):
    world = open_clip_world
    names, cosines, count = outcome.similarity(world.evaluation, [world.target], world.masks, others=2)
    assert names[0] == world.sets[0].pictures.names[world.target.label] and len(names) == 3
    assert cosines.shape == (3, 3) and (cosines.argmax(1) == range(3)).all()
    task = world.evaluation.tasks["identities"]
    rows = world.evaluation.rows("identities", world.masks["identities"], label=world.target.label)
    mean = torch.nn.functional.normalize(task.features[rows].mean(0), dim=0)
    assert cosines[0, 0] == pytest.approx(float(mean @ task.weights[world.target.label]), abs=1e-5)
    assert count >= len(rows)


def test_pictures_to_look_at_show_the_target_first(open_clip_world):
    world = open_clip_world
    images, truth, guessed = outcome.shown(world.evaluation, world.target, world.masks, count=3)
    name = world.sets[0].pictures.names[world.target.label]
    assert len(images) == len(truth) == len(guessed) == 6
    assert truth[:3] == [name] * 3 and name not in truth[3:]


def test_pictures_to_look_at_are_those_that_the_unedited_model_recognises(open_clip_world):
    """A picture that was never recognised would show nothing of an edit."""
    world = open_clip_world
    task, target = world.evaluation.tasks["identities"], world.target
    rows = world.evaluation.rows("identities", world.masks["identities"], label=target.label)
    known = zeroshot.ranks(task.features[rows], task.weights, task.pictures.labels[rows], task.pictures.blocks) < 1
    count = min(int(known.sum()), 2)
    assert 0 < count < len(rows)
    _, truth, guessed = outcome.shown(world.evaluation, target, world.masks, count=count)
    assert truth[:count] == guessed[:count]


def test_the_names_beside_the_target_are_its_nearest(open_clip_world):
    world = open_clip_world
    names, _, _ = outcome.similarity(world.evaluation, [world.target], world.masks, others=1)
    task, label = world.evaluation.tasks["identities"], world.target.label
    near = task.weights @ task.weights[label]
    same = [c for c in range(len(near)) if c != label and task.pictures.blocks[c] == task.pictures.blocks[label]]
    assert names[1] == task.pictures.names[max(same, key=lambda c: near[c].item())]
