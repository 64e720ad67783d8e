"""What a reader can look at: pictures with the first answers before and after an edit, and how every other name fares."""

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image

from slug.evaluation import outcome
from slug.evaluation.clip_evaluator import ClipEvaluator

SIDE = 224  # pixels of a stored picture, at most
LOSSLESS = 128  # pixels up to which a picture is stored as PNG; larger ones as JPEG
Said = list[list[tuple[str, float]]]  # for each picture the first answers with their probabilities
ByName = dict[tuple[str, str], tuple[int, int]]  # {(task, name): (recognised pictures, pictures)}


class Answers(NamedTuple):
    """Pictures of a task with a model's first answers."""

    images: torch.Tensor  # (K, 3, S, S) uint8: of the forgotten name, then of others
    among: int  # names that the model chooses from
    truth: list[str]
    own: list[bool]  # whether the picture shows the forgotten name
    said: Said


def answers(evaluator: ClipEvaluator, seed: int, count: int = 6, top: int = 5) -> Answers:
    """Test pictures that the unedited model recognises, at most `count` of the target and as many of others, with the first
    `top` answers of the model as it is, among the names of their block."""
    evaluation, target = evaluator.evaluation, evaluator.target
    task = evaluation.tasks[target.task]
    rows = outcome.to_show(evaluation, target, evaluator.masks, count=count, seed=seed)
    rows = rows[task.guessed[rows] == task.pictures.labels[rows]]
    labels, blocks, names = task.pictures.labels[rows], task.pictures.blocks, task.pictures.names
    features, weights = evaluation.sides(target.task, rows)
    logits = evaluation.clip.scale().detach().cpu().float() * (features.cpu().float() @ weights.cpu().float().T)
    logits[blocks[None] != blocks[labels][:, None]] = -torch.inf
    found = logits.softmax(1).topk(min(top, len(names)), 1)
    said = [
        [(names[c], share) for share, c in zip(shares, classes, strict=True) if share > 0]
        for shares, classes in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    own = (labels == target.label).tolist()
    among = int((blocks == blocks[target.label]).sum())
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


def data_address(image: torch.Tensor) -> str:
    """A picture (3, S, S) uint8 as an address that holds it, for an HTML page."""
    made, kept = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()), io.BytesIO()
    made.thumbnail((SIDE, SIDE))
    kind, how = ("png", {"optimize": True}) if max(made.size) <= LOSSLESS else ("jpeg", {"quality": 90})
    made.save(kept, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(kept.getvalue()).decode()}"


def pictures(before: Answers, after: Answers) -> list[dict[str, Any]]:
    """Pictures with the answers before and after an edit, as JSON can hold them."""
    return [
        {"image": data_address(image), "name": name, "own": own, "before": was, "after": now}
        for image, name, own, was, now in zip(before.images, before.truth, before.own, before.said, after.said, strict=True)
    ]


def changed(before: Mapping[tuple[str, str], tuple[int, int]], after: ByName) -> list[dict[str, Any]]:
    """The retained names whose number of recognised pictures changed, as JSON can hold them."""
    return [
        {"task": task, "name": name, "pictures": total, "before": correct, "after": after[task, name][0]}
        for (task, name), (correct, total) in before.items()
        if after[task, name][0] != correct
    ]
