"""Evaluation without labels: the figures are what the plain formulas say, and an unedited model agrees with itself."""

import clip_world
import pytest
import tiny
import torch

from slug.core.edit import Edit
from slug.data.photographs import Photographs
from slug.evaluation import unlabelled, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Target
from slug.schema import AGREEMENT, NAMES, PAIRS

CLASSES = ["alien", "ant", "baby", "a bento box"]


def photographs(clip, pairs):
    with torch.no_grad():
        return Photographs(pairs, clip.encode_image(pairs.images), list(pairs.keys))


class Small:
    """A CLIP with pictures of noise: 6 of the concept, 12 pairs of other things."""

    def __init__(self, clip):
        self.clip = clip
        own, others = tiny.pairs(6, seed=1, names=("alien",)), tiny.pairs(12, seed=2, names=("an ant", "a baby", "a box"))
        sets = unlabelled.task_sets({"alien": photographs(clip, own)}, photographs(clip, others), CLASSES)
        self.evaluation = Evaluation(clip, sets)
        self.target = Target("alien", unlabelled.CONCEPT, NAMES, 0)
        self.masks = {s.name: torch.ones(len(s.pictures.labels), dtype=torch.bool) for s in sets}
        left_out = unlabelled.own_labels(self.evaluation, self.target)
        self.evaluator = ClipEvaluator(self.evaluation, self.target, None, self.masks, left_out=left_out)


@pytest.fixture
def small(clip):
    return Small(clip)


def test_the_unedited_model_agrees_with_itself_and_the_name_itself_is_not_retained(small):
    task = small.evaluation.tasks[AGREEMENT]
    assert torch.equal(task.pictures.labels, (task.features @ task.weights.T).argmax(1).cpu())
    assert small.evaluator.start.scores[f"{AGREEMENT}_acc1"] == 1
    rows = small.evaluator.retain_rows
    assert set(rows) == {AGREEMENT, PAIRS} and not (task.pictures.labels[rows[AGREEMENT]] == 0).any()


def test_one_classifier_serves_both_tasks_of_the_class_names(small):
    names, agreement = small.evaluation.tasks[NAMES], small.evaluation.tasks[AGREEMENT]
    assert agreement.language is names.language and small.evaluation.tasks[PAIRS].vision is agreement.vision
    edit = clip_world.random_edit(small.clip, next(n for n, e in small.clip.candidates().items() if e == "language"))
    with small.evaluation.carrying(edit):
        _, after = small.evaluation.sides(AGREEMENT, small.evaluator.retain_rows[AGREEMENT])
        expected = zeroshot.classifier(small.clip, CLASSES, unlabelled.TEMPLATES)
        assert torch.allclose(after, expected, atol=1e-5) and not torch.allclose(after, names.weights, atol=1e-3)


@pytest.mark.parametrize("encoder", ["vision", "language", "none"])
def test_figures_are_those_of_the_plain_formulas(small, encoder):
    clip, own, others = small.clip, *(small.evaluation.tasks[t].pictures for t in (NAMES, PAIRS))
    edit = Edit()
    if encoder != "none":
        edit = clip_world.random_edit(clip, [n for n, e in clip.candidates().items() if e == encoder][-1])
    with small.evaluation.carrying(edit), torch.no_grad():
        row = unlabelled.figures(small.evaluator, [1, 2])
        pictures, more = clip.encode_image(own.images), clip.encode_image(others.images)
        texts = clip.encode_text(clip.tokenize(others.names))
        weights = zeroshot.classifier(clip, CLASSES, unlabelled.TEMPLATES)
    said, name = (pictures @ weights.T).argmax(1), weights[0]
    assert row["forget_recognised"] == int((said == 0).sum()) and row["n_sources"] == 6
    ranks = [1 + sum(float(p @ t) >= float(p @ name) for t in texts) for p in pictures]
    assert row["rank_of_name"] == pytest.approx(torch.tensor(ranks).float().median().item())
    back = [1 + sum(float(o @ name) >= float(p @ name) for o in more) for p in pictures]
    assert row["rank_of_pictures"] == pytest.approx(torch.tensor(back).float().median().item())
    nearest = sorted(range(18), key=lambda i: -float(torch.cat([pictures, more])[i] @ name))[:6]
    assert row["precision_of_name"] == pytest.approx(sum(i < 6 for i in nearest) / 6)
    cosines = [float(more[i] @ texts[others.labels[i]]) for i in range(12)]
    assert row["cosine"] == pytest.approx(sum(cosines) / 12, abs=1e-5)
    taken = small.evaluation.tasks[AGREEMENT].pictures.labels
    close = [i for i in range(12) if int(taken[i]) in (1, 2)]
    assert row["n_neighbours"] == len(close)
    if close:
        same = [(more[i] @ weights.T).argmax().item() == taken[i] for i in close]
        assert row["neighbours_acc1"] == pytest.approx(sum(map(int, same)) / len(close), abs=1e-6)


def test_pairs_of_one_caption_share_a_class(clip):
    pairs = tiny.pairs(4)._replace(captions=["a cat", "a dog", "a cat", "an ant"])
    sets = unlabelled.task_sets({"alien": photographs(clip, tiny.pairs(2))}, photographs(clip, pairs), CLASSES)
    assert sets[2].pictures.names == ["a cat", "a dog", "an ant"] and sets[2].pictures.labels.tolist() == [0, 1, 0, 2]


def test_captions_with_braces_are_taken_as_they_are(clip):
    pairs = tiny.pairs(2)._replace(captions=["{} of {name}", "a dog"])
    sets = unlabelled.task_sets({"alien": photographs(clip, tiny.pairs(2))}, photographs(clip, pairs), CLASSES)
    assert zeroshot.prompts(sets[2].pictures.names, sets[2].templates) == ["{} of {name}", "a dog"]


def test_neighbours_are_the_names_nearest_by_their_prompts(small):
    weights = small.evaluation.tasks[NAMES].weights
    order = sorted((1, 2, 3), key=lambda i: -float(weights[i] @ weights[0]))
    assert unlabelled.neighbours(small.evaluation, small.target, 2) == order[:2]


def test_answers_are_the_commonest_names_with_their_shares(small):
    said = unlabelled.answers(small.evaluation, small.evaluator.forget_rows, count=4)
    assert sum(share for _, share in said) == pytest.approx(1) and [s for _, s in said] == sorted(
        (s for _, s in said), reverse=True
    )


def test_what_is_forgotten_is_left_out_of_every_task_that_has_it_as_a_class(small):
    labelled = small.evaluation.tasks[AGREEMENT]._replace(pictures=small.evaluation.tasks[AGREEMENT].pictures)
    names = ["ant", "ALIEN"]
    labels = torch.tensor([1] * 5 + [0] * 7)
    small.evaluation.tasks["mine"] = labelled._replace(pictures=labelled.pictures._replace(names=names, labels=labels))
    left_out = unlabelled.own_labels(small.evaluation, small.target)
    assert left_out == {NAMES: 0, AGREEMENT: 0, "mine": 1}
    evaluator = ClipEvaluator(small.evaluation, small.target, None, small.masks | {"mine": labels >= 0}, left_out=left_out)
    assert len(evaluator.retain_rows["mine"]) == 7
    found = unlabelled.in_labelled(small.evaluation, small.target, small.masks | {"mine": labels >= 0})
    assert found["mine"]["n"] == 5
