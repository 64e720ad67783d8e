"""What a reader can look at: pictures with the first answers before and after an edit, and how every other name fares."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from slug.evaluation import outcome
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation

Said = list[list[tuple[str, float]]]  # for each picture the first answers with their probabilities
ByName = dict[tuple[str, str], tuple[int, int]]  # {(task, name): (recognised pictures, pictures)}


class Answers(NamedTuple):
    """Pictures of a task with a model's first answers."""

    images: torch.Tensor  # (K, 3, S, S) uint8: of the forgotten name, then of others
    among: int  # names that the model chooses from
    truth: list[str]
    own: list[bool]  # whether the picture shows the forgotten name
    said: Said


def first_answers(evaluation: Evaluation, task: str, rows: torch.Tensor, top: int = 5) -> Said:
    """The first answers of the model as it is to the pictures `rows` of a task, among the names of their blocks."""
    pictures = evaluation.tasks[task].pictures
    blocks, names = pictures.blocks, pictures.names
    features, weights = evaluation.sides(task, rows)
    logits = evaluation.clip.scale().detach().cpu().float() * (features.cpu().float() @ weights.cpu().float().T)
    logits[blocks[None] != blocks[pictures.labels[rows]][:, None]] = -torch.inf
    found = logits.softmax(1).topk(min(top, len(names)), 1)
    return [
        [(names[c], share) for share, c in zip(shares, classes, strict=True) if share > 0]
        for shares, classes in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]


def answers(evaluator: ClipEvaluator, seed: int, count: int = 6) -> Answers:
    """Test pictures that the unedited model recognises, at most `count` of the target and as many of others, with the
    answers of the model as it is."""
    evaluation, target = evaluator.evaluation, evaluator.target
    task = evaluation.tasks[target.task]
    rows = outcome.to_show(evaluation, target, evaluator.masks, count=count, seed=seed)
    rows = rows[task.guessed[rows] == task.pictures.labels[rows]]
    labels, blocks, names = task.pictures.labels[rows], task.pictures.blocks, task.pictures.names
    own = (labels == target.label).tolist()
    among = int((blocks == blocks[target.label]).sum())
    said = first_answers(evaluation, target.task, rows)
    return Answers(task.pictures.images[rows], among, [names[i] for i in labels.tolist()], own, said)


def by_name(evaluator: ClipEvaluator) -> ByName:
    """How many pictures of each retained name the model recognises as it is."""
    found = {}
    ranks = evaluator.ranks()
    for task, rows in evaluator.retain_rows.items():
        pictures = evaluator.evaluation.tasks[task].pictures
        labels, right = pictures.labels[rows], (ranks[task] < 1).long()
        total, correct = (torch.zeros(len(pictures.names), dtype=torch.long) for _ in range(2))
        total.index_add_(0, labels, torch.ones_like(labels))
        correct.index_add_(0, labels, right)
        for label in torch.nonzero(total).flatten().tolist():
            found[task, pictures.names[label]] = int(correct[label]), int(total[label])
    return found


def changed(before: Mapping[tuple[str, str], tuple[int, int]], after: ByName) -> list[dict[str, Any]]:
    """The retained names whose number of recognised pictures changed, as JSON can hold them."""
    return [
        {"task": task, "name": name, "pictures": total, "before": correct, "after": after[task, name][0]}
        for (task, name), (correct, total) in before.items()
        if after[task, name][0] != correct
    ]
