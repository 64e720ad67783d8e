"""Evaluation without labels: a concept's own held-out pictures, and pairs of other things that nobody labelled.

Forgetting is recognition of held-out pictures of the concept among class names, and its rank in retrieval. Retention is
agreement with the unedited model's own top-1 answers over the same names on held-out retain pictures, recall of the pairs'
captions, and the change of the pairs' cosines. All are tasks of evaluation.clip_tasks, so search and choice are those of
labelled sets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from slug.data.evaluation_sets import PictureSet
from slug.data.photographs import Photographs
from slug.evaluation import zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Masks, Target, TaskSet
from slug.schema import AGREEMENT, NAMES, PAIRS

CONCEPT = "concept"  # kind of what is forgotten
TEMPLATES = ("{}.", "a photo of a {}.")
NEIGHBOURS = 10  # classes nearest to the concept


def _pictures(found: Photographs, labels: torch.Tensor, names: Sequence[str]) -> PictureSet:
    blocks, seen = torch.zeros(len(names), dtype=torch.long), torch.ones(len(labels), dtype=torch.bool)
    keys = tuple(found.pairs.keys)
    return PictureSet(found.pairs.images, labels, list(names), blocks, found.groups, seen, found.pairs.broken, keys)


def task_sets(held_out: Mapping[str, Photographs], retain: Photographs, classes: Sequence[str]) -> list[TaskSet]:
    """The tasks of pictures that nobody labelled.

    Args:
        held_out: {name: its pictures that gave no gradient}; `classes` begin with these names.
        retain: held-out pairs of other things.
    """
    every = [*held_out.values()]
    pairs = [p.pairs for p in every]
    both = every[0].pairs._replace(
        images=torch.cat([p.images for p in pairs]),
        keys=[k for p in pairs for k in p.keys],
        broken=sum(p.broken for p in pairs),
    )
    # Two names may have pictures of one file name; they are not one source image.
    groups = [f"{n}: {g}" for n, part in enumerate(every) for g in part.groups]
    names = Photographs(both, torch.cat([p.features for p in every]), groups)
    labels = torch.tensor([i for i, part in enumerate(every) for _ in part.groups], dtype=torch.long)
    captions = list(dict.fromkeys(retain.pairs.captions))
    places = {caption: i for i, caption in enumerate(captions)}
    own = torch.tensor([places[c] for c in retain.pairs.captions], dtype=torch.long)
    return [
        TaskSet(NAMES, CONCEPT, _pictures(names, labels, classes), TEMPLATES),
        TaskSet(AGREEMENT, "class", _pictures(retain, torch.zeros_like(own), classes), TEMPLATES, own_answers=True),
        TaskSet(PAIRS, "caption", _pictures(retain, own, captions), ("{}",)),
    ]


def answers(evaluation: Evaluation, rows: torch.Tensor, count: int = 3) -> list[tuple[str, float]]:
    """What the unedited model calls the pictures `rows` of NAMES: the commonest names, [(name, fraction)]."""
    task = evaluation.tasks[NAMES]
    said = task.guessed[rows].bincount(minlength=len(task.pictures.names))
    found = said.argsort(descending=True, stable=True)[:count].tolist()
    return [(task.pictures.names[i], said[i].item() / len(rows)) for i in found if said[i]]


def neighbours(evaluation: Evaluation, target: Target, count: int = NEIGHBOURS) -> list[int]:
    """The classes nearest to a name by the unedited model's prompts, the nearest first."""
    weights = evaluation.tasks[NAMES].weights
    cosines = weights @ weights[target.label]
    cosines[target.label] = -torch.inf
    return cosines.argsort(descending=True)[:count].tolist()


def figures(evaluator: ClipEvaluator, near: Sequence[int]) -> dict[str, Any]:
    """Figures of the state that the model carries, on one split, besides those of every evaluation, as columns.

    Args:
        near: the classes whose pictures count as neighbours' (`neighbours`).
    """
    evaluation, target, own = evaluator.evaluation, evaluator.target, evaluator.forget_rows
    features, weights = evaluation.sides(NAMES, own)
    name = weights[target.label]
    recognised = zeroshot.ranks(features, weights, *_classes(evaluation, NAMES, own)) < 1
    groups = {evaluation.tasks[NAMES].pictures.groups[i] for i in own.tolist()}
    row: dict[str, Any] = {"forget_recognised": int(recognised.sum()), "n_sources": len(groups)}
    rows = evaluator.retain_rows[PAIRS]
    pictures, captions = evaluation.sides(PAIRS, rows)
    labels = evaluation.tasks[PAIRS].pictures.labels[rows].to(captions.device)
    # Picture to text: the name's prompt among the captions of other things. Text to picture: the reverse.
    texts = captions[labels.unique()]
    own_cosines = features @ name
    row["rank_of_name"] = _median_rank(own_cosines, features @ texts.T)
    row["n_captions"] = len(texts)
    others = pictures @ name
    row["rank_of_pictures"] = _median_rank(own_cosines, others.expand(len(own_cosines), -1))
    row["n_pictures"] = len(others)
    nearest = torch.cat([own_cosines, others]).argsort(descending=True)[: len(own)]
    row["precision_of_name"] = (nearest < len(own)).float().mean().item()
    row["cosine"] = (pictures * captions[labels]).sum(1).mean().item()
    row["forget_cosine"] = own_cosines.mean().item()
    agreement = evaluator.retain_rows[AGREEMENT]
    taken = evaluation.tasks[AGREEMENT].pictures.labels[agreement]
    close = agreement[torch.isin(taken, torch.tensor(list(near), dtype=torch.long))]
    row["n_neighbours"] = len(close)
    if len(close):
        row["neighbours_acc1"] = zeroshot.accuracies(evaluation.ranks(AGREEMENT, close))[0]
    return row


def _classes(evaluation: Evaluation, task: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = evaluation.tasks[task].pictures
    return pictures.labels[rows], pictures.blocks


def _median_rank(own: torch.Tensor, others: torch.Tensor) -> float:
    """Median over pictures (n,) of 1 + the number of `others` (n, m) whose cosine is as high as their own."""
    return 1 + (others >= own[:, None]).sum(1).float().median().item()


def in_labelled(evaluation: Evaluation, target: Target, masks: Masks) -> dict[str, dict[str, float]]:
    """{labelled task: {"acc1", "n"}}: recognition of what is forgotten where labelled sets show it, in one split."""
    found: dict[str, dict[str, float]] = {}
    for task, label in own_labels(evaluation, target).items():
        rows = evaluation.rows(task, masks[task], label=label)
        if task not in (NAMES, AGREEMENT, PAIRS) and len(rows):
            found[task] = {"acc1": zeroshot.accuracies(evaluation.ranks(task, rows))[0], "n": len(rows)}
    return found


def own_labels(evaluation: Evaluation, target: Target) -> dict[str, int]:
    """{task: label of the target's name} of all tasks that have it among their classes: such pictures are not retained."""
    wanted, found = target.name.casefold(), dict[str, int]()
    for task, held in evaluation.tasks.items():
        if task != PAIRS:
            labels = [label for label, known in enumerate(held.pictures.names) if known.casefold() == wanted]
            found |= {task: labels[0]} if labels else {}
    return found
