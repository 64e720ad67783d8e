"""What an edit comes to on both splits: figures with intervals and paired changes, and what plots show of it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from slug.core.edit import Edit
from slug.evaluation import likeness, membership, statistics, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Masks, Target

Ranks = Mapping[str, torch.Tensor]
NEIGHBOURS = 10  # names nearest to the one that is forgotten


def figures(evaluator: ClipEvaluator, ranks: Ranks, more: Mapping[str, float]) -> dict[str, Any]:
    """The figures of a state of the model by its ClipEvaluator.ranks, as columns of table.csv; `more` are further ones."""
    pictures = evaluator.evaluation.tasks[evaluator.target.task].pictures
    seen, forget = pictures.seen[evaluator.forget_rows], ranks["forget"]
    correct = int((forget < 1).sum())
    sources = [pictures.groups[i] for i in evaluator.forget_rows.tolist()]
    known = {group for group, hit in zip(sources, (forget < 1).tolist(), strict=True) if hit}
    row = {
        "forget_acc1": correct / len(forget),
        "forget_acc5": zeroshot.accuracies(forget)[1],
        "forget_upper": statistics.interval(correct, len(forget))[1],
        "forget_seen_acc1": zeroshot.accuracies(forget[seen])[0],  # NaN where there are none
        "forget_unseen_acc1": zeroshot.accuracies(forget[~seen])[0],
        "n_forget": len(forget),
        "n_forget_unseen": int((~seen).sum()),
        "n_drawings": len(set(sources)),
        "sources_recognised": len(known),  # of which at least one picture is
        "forget_upper_sources": statistics.interval(len(known), len(set(sources)))[1],
        **more,
    }
    near = neighbour_rows(evaluator)
    row |= {"n_neighbours": len(near)}
    if len(near):
        row["neighbours_acc1"] = zeroshot.accuracies(ranks[evaluator.target.task][near])[0]
    for task in evaluator.retain_rows:
        row[f"{task}_acc1"], row[f"{task}_acc5"] = evaluator.accuracies(task, ranks[task], evaluator.retain_rows[task])
        row[f"n_{task}"] = len(ranks[task])
    return row


def changes(
    evaluation: Evaluation,
    retain_rows: Mapping[str, torch.Tensor],
    before: Ranks,
    after: Ranks,
    seed: int,
    by_name: Collection[str] = (),
) -> dict[str, float]:
    """Paired changes of the retained accuracies @1 as columns, with 95% bootstrap intervals over source images: of the
    pictures `retain_rows`, {task: indices}, with {task: ranks} `before` and `after`; of the tasks `by_name` the accuracy is
    the mean over names."""
    row: dict[str, float] = {}
    for task, rows in retain_rows.items():
        pictures = evaluation.tasks[task].pictures
        groups = [pictures.groups[i] for i in rows.tolist()]
        weights = zeroshot.weights_of(pictures.labels[rows]) if task in by_name else 1
        was, now = (weights * (ranks[task] < 1) for ranks in (before, after))
        mean, low, high = statistics.paired_difference(was, now, groups, seed=seed)
        row |= {f"{task}_change": mean, f"{task}_change_low": low, f"{task}_change_high": high}
    return row


def neighbour_rows(evaluator: ClipEvaluator, count: int = NEIGHBOURS) -> torch.Tensor:
    """Positions (n,) among the retained pictures of the target's task of those that show its nearest names: the `count`
    names of its block, with pictures there, whose prompts the unedited model holds nearest to its own."""
    target = evaluator.target
    task, rows = evaluator.evaluation.tasks[target.task], evaluator.retain_rows.get(target.task)
    if rows is None:
        return torch.empty(0, dtype=torch.long)
    labels, blocks = task.pictures.labels[rows], task.pictures.blocks
    cosines = (task.weights @ task.weights[target.label]).cpu()
    there = torch.zeros(len(cosines), dtype=torch.bool)
    there[labels] = True
    there &= blocks == blocks[target.label]
    there[target.label] = False
    nearest = cosines.masked_fill(~there, -torch.inf).argsort(descending=True, stable=True)[: min(count, int(there.sum()))]
    return torch.nonzero(torch.isin(labels, nearest)).flatten()


def to_its_name(evaluator: ClipEvaluator, ranks: Ranks) -> dict[str, float]:
    """How near the model that is carried holds a name's pictures to its prompt, as columns: the mean cosine, and the median
    place of the name among all names."""
    features, weights = evaluator.evaluation.sides(evaluator.target.task, evaluator.forget_rows)
    cosine = (features @ weights[evaluator.target.label]).mean().item()
    return {"forget_cos": cosine, "forget_rank": 1 + ranks["forget"].float().median().item()}


def one_side(evaluator: ClipEvaluator) -> dict[str, float]:
    """Top-1 forget accuracy where only one tower carries the edit and the other is the unedited model's, as columns. Where
    the language tower alone forgets, only the name was lost: the pictures are still recognised by any other name for them.
    Where the vision tower alone forgets, the pictures were lost."""
    task, rows = evaluator.evaluation.tasks[evaluator.target.task], evaluator.forget_rows
    features, weights = evaluator.evaluation.sides(evaluator.target.task, rows)
    labels, blocks = task.pictures.labels[rows], task.pictures.blocks
    sides = {"vision": (features, task.weights), "language": (task.features[rows], weights)}
    return {f"forget_{s}_acc1": zeroshot.accuracies(zeroshot.ranks(*pair, labels, blocks))[0] for s, pair in sides.items()}


def on_splits(
    evaluators: Mapping[str, ClipEvaluator], edit: Edit, method: str, seed: int, aliases: Sequence[str] | None = None
) -> dict[str, Any]:
    """{split: {"original": figures, method: figures of the edit with paired changes}} by evaluators of one evaluation.

    Args:
        aliases: other names for the name, if the figures of `likeness` are wanted, on the test split.
    """
    (evaluation,) = {e.evaluation for e in evaluators.values()}

    def states() -> dict[str, tuple[Ranks, dict[str, float]]]:
        found: dict[str, tuple[Ranks, dict[str, float]]] = {}
        for split, e in evaluators.items():
            ranks, inferred = e.ranks(), membership.of_edit(e)
            found[split] = ranks, inferred | to_its_name(e, ranks) | (one_side(e) if evaluation.edit else {})
        if aliases is not None:
            found["test"][1].update(likeness.figures(evaluators, aliases))
        return found

    before = states()
    with evaluation.carrying(edit):
        after = states()
    out = {}
    for split, e in evaluators.items():
        by_name = [task for task in e.retain_rows if e.by_name(task)]
        paired = changes(evaluation, e.retain_rows, before[split][0], after[split][0], seed, by_name)
        out[split] = {"original": figures(e, *before[split]), method: figures(e, *after[split]) | paired}
    return out


def unedited(evaluators: Mapping[str, ClipEvaluator], aliases: Sequence[str]) -> dict[str, Any]:
    """The figures of the unedited model on the test split, those of `likeness` among them, as columns."""
    evaluator, more = evaluators["test"], likeness.figures(evaluators, aliases)
    ranks = evaluator.ranks()
    return figures(evaluator, ranks, membership.of_edit(evaluator) | to_its_name(evaluator, ranks) | more)


def similarity(
    evaluation: Evaluation, targets: Sequence[Target], masks: Masks, *, others: int = 9
) -> tuple[list[str], np.ndarray, int]:
    """Cosines of mean picture features and name prompts of a split: (names, (K, K) array, number of pictures), first the
    targets, which are classes of one task, then the `others` classes of the first target's block whose prompts the unedited
    model holds nearest to theirs."""
    target, own = targets[0], [t.label for t in targets]
    task = evaluation.tasks[target.task]
    blocks, labels = task.pictures.blocks, task.pictures.labels
    there = set(labels[masks[target.task]].tolist())
    rivals = [c for c in range(len(blocks)) if c not in own and blocks[c] == blocks[target.label] and c in there]
    near = (task.weights[rivals] @ task.weights[own].T).mean(1).cpu()
    chosen = [*own, *(rivals[i] for i in near.argsort(descending=True, stable=True)[:others].tolist())]
    rows = torch.cat([evaluation.rows(target.task, masks[target.task], label=c) for c in chosen])
    features, weights = evaluation.sides(target.task, rows)
    means = torch.stack([features[(labels[rows] == c).to(features.device)].mean(0) for c in chosen])
    means = torch.nn.functional.normalize(means, dim=-1)
    return [task.pictures.names[c] for c in chosen], (means @ weights[chosen].T).cpu().numpy(), len(rows)


def to_show(evaluation: Evaluation, target: Target, masks: Masks, *, count: int = 7, seed: int = 0) -> torch.Tensor:
    """Indices (2 * count,) of pictures to look at in the target's task, first the target's, then others'.

    A picture that the unedited model does not recognise shows nothing of an edit: recognised ones come first, source image
    after source image in turn, in an order drawn by `seed`.
    """
    task, g = evaluation.tasks[target.task], torch.Generator().manual_seed(seed)
    pictures = task.pictures
    rivals, mask = pictures.blocks[pictures.labels] == pictures.blocks[target.label], masks[target.task]

    def some(rows: torch.Tensor) -> torch.Tensor:
        rows = rows[torch.randperm(len(rows), generator=g)]
        known = zeroshot.ranks(task.features[rows], task.weights, pictures.labels[rows], pictures.blocks) < 1
        turns: Counter[tuple[bool, str]] = Counter()
        order = []
        for i, (row, right) in enumerate(zip(rows.tolist(), known.tolist(), strict=True)):
            turns[group := (right, pictures.groups[row])] += 1
            order.append((not right, turns[group], i))
        return rows[[i for *_, i in sorted(order)][:count]]

    own = evaluation.rows(target.task, mask, label=target.label)
    other = evaluation.rows(target.task, mask & rivals, without=target.label)
    return torch.cat([some(own), some(other)])


def shown(
    evaluation: Evaluation, target: Target, masks: Masks, *, count: int = 7, seed: int = 0
) -> tuple[torch.Tensor, list[str], list[str]]:
    """The pictures `to_show`: (images (2 * count, 3, S, S), true names, guessed names)."""
    rows, pictures = to_show(evaluation, target, masks, count=count, seed=seed), evaluation.tasks[target.task].pictures
    truth, names = pictures.labels[rows], pictures.names
    guess = zeroshot.guesses(*evaluation.sides(target.task, rows), truth, pictures.blocks)
    return pictures.images[rows], [names[i] for i in truth], [names[i] for i in guess]
