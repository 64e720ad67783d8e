"""What is left of a name's pictures, on features made by hand and on the tiny model."""

import pytest
import torch
from torch.nn.functional import normalize

from slug.evaluation import likeness, outcome, zeroshot


def test_the_nearest_picture_of_the_same_source_image_does_not_count():
    features = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.3], [1.0, 0.2], [0.0, 1.0]]), dim=1)
    labels, own = torch.tensor([0, 0, 0, 1, 1]), torch.arange(3)
    # 0 and 1 are one source image: the nearest other one is 3, of another name; that of 2 is 3 as well.
    assert likeness.retrieved(features, own, labels, ["a", "a", "b", "c", "d"]) == 0.0
    # Now the source image of 3 is far away: 0 and 1 find 2, and 2 finds 1.
    features[3] = features[4]
    assert likeness.retrieved(features, own, labels, ["a", "a", "b", "c", "d"]) == 1.0


def test_a_probe_tells_apart_what_differs_and_guesses_where_nothing_does():
    g = torch.Generator().manual_seed(0)
    noise = [0.1 * torch.randn(20, 4, generator=g) for _ in range(4)]
    shift = torch.tensor([1.0, 0, 0, 0])
    hit, wrong = likeness.told_apart(noise[0] + shift, noise[1], noise[2] + shift, noise[3])
    assert hit.all() and not wrong.any()
    hit, wrong = likeness.told_apart(*noise)
    assert 0.2 < (hit.float().mean() + 1 - wrong.float().mean()) / 2 < 0.8


@pytest.fixture(scope="module")
def evaluators(open_clip_world):
    masks = {"validation": open_clip_world.masks, "test": {t: ~m for t, m in open_clip_world.masks.items()}}
    return {split: open_clip_world.evaluator(masks[split]) for split in masks}


def test_an_edit_of_the_texts_leaves_the_pictures_and_their_probe_as_they_are(open_clip_world, evaluators):
    aliases = ["another name", "a third one"]
    before = likeness.figures(evaluators, aliases)
    texts = next(n for n in open_clip_world.clip.candidates() if open_clip_world.clip.tower(n) == "language")
    with open_clip_world.evaluation.carrying(open_clip_world.edit(texts, 30.0)):
        after = likeness.figures(evaluators, aliases)
    for column in ("retrieval_acc1", "probe_acc"):
        assert after[column] == before[column] and 0 <= before[column] <= 1
    assert before["n_aliases"] == 2 and 0 <= before["alias_acc1"] <= 1


def test_the_best_of_the_other_names_counts_and_the_names_own_text_is_one(open_clip_world, evaluators):
    """Called by its own name, its pictures are recognised as ever; without other names there is no figure."""
    test = evaluators["test"]
    own = zeroshot.accuracies(test.ranks()["forget"])[0]
    found = likeness.called_otherwise(test, [test.target.name])
    assert found == {"n_aliases": 1, "alias_acc1": pytest.approx(own)}
    assert likeness.called_otherwise(test, [test.target.name, "zzz"])["alias_acc1"] >= found["alias_acc1"]
    assert likeness.called_otherwise(test, []) == {"n_aliases": 0}


def test_records_of_frozen_rules_hold_them_on_the_test_split_alone(open_clip_world, evaluators):
    edit = open_clip_world.edit("visual.proj", 3.0)
    plain, more = (outcome.on_splits(evaluators, edit, "slug", 0, aliases) for aliases in (None, ["another"]))
    columns = {"retrieval_acc1", "probe_acc", "alias_acc1", "n_aliases"}
    for state in ("original", "slug"):
        assert columns <= set(more["test"][state]) and not columns & set(plain["test"][state])
        assert not columns & set(more["validation"][state])
    with open_clip_world.evaluation.carrying(edit):
        assert more["test"]["slug"]["retrieval_acc1"] == likeness.figures(evaluators, [])["retrieval_acc1"]
    assert more["test"]["original"] == outcome.unedited(evaluators, ["another"])
