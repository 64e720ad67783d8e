"""The figures of an edit on both splits, with paired changes."""

import math

import torch

from slug.evaluation import statistics, zeroshot
from slug.evaluation.membership import membership
from slug.evaluation.zeroshot import guesses


def figures(judge, ranks, more):
    """One half's figures of one model state, as the columns of table.csv (DESIGN.md) and their bounds."""
    evaluation, target = judge.evaluation, judge.target
    pictures = evaluation.tasks[target.task].pictures
    seen = pictures.seen[judge.forget_rows]
    forget = ranks["forget"]
    groups = [pictures.groups[i] for i in judge.forget_rows.tolist()]
    correct = int((forget < 1).sum())
    row = {
        "forget_acc1": correct / len(forget),
        "forget_acc5": zeroshot.accuracies(forget)[1],
        "forget_upper": statistics.interval(correct, len(forget))[1],
        "forget_seen_acc1": _share(forget[seen]),
        "forget_unseen_acc1": _share(forget[~seen]),
        "n_forget": len(forget),
        "n_forget_unseen": int((~seen).sum()),
        "n_drawings": len(set(groups)),
        **more,
    }
    for task in ("identities", "objects"):
        row[f"{task}_acc1"], row[f"{task}_acc5"] = zeroshot.accuracies(ranks[task])
        row[f"n_{task}"] = len(ranks[task])
    return row


def changes(judge, before, after, seed):
    """Paired change of the retain accuracies @1 with 95% bootstrap intervals over drawings, as columns.

    Args:
        judge: Judge, or what else has its `evaluation` and `retain_rows`.
        before, after: {task: ranks of its retain pictures}.
    """
    row = {}
    for task, rows in judge.retain_rows.items():
        groups = [judge.evaluation.tasks[task].pictures.groups[i] for i in rows.tolist()]
        mean, low, high = statistics.paired_difference(before[task] < 1, after[task] < 1, groups, seed=seed)
        row |= {f"{task}_change": mean, f"{task}_change_low": low, f"{task}_change_high": high}
    return row


def one_side(judge, edited):
    """Top-1 forget accuracy where only one tower carries the edit and the other is the unedited model's, as columns.

    Where the language tower alone forgets, the name was lost and the pictures are still recognised by any other name for
    them; where the vision tower alone does, the pictures were.
    """
    task, rows = judge.evaluation.tasks[judge.target.task], judge.forget_rows
    features, weights = judge.evaluation.sides(judge.target.task, rows, edited)
    labels, blocks = task.pictures.labels[rows], task.pictures.blocks
    sides = {"vision": (features, task.weights), "language": (task.features[rows], weights)}
    return {f"forget_{s}_acc1": zeroshot.accuracies(zeroshot.ranks(*pair, labels, blocks))[0] for s, pair in sides.items()}


def both_splits(judges, edited, inside, method, seed):
    """{split: {"original": figures, method: figures of the edit with its paired changes}}.

    Args:
        judges: {split: Judge}, of one evaluation.
        edited: see Evaluation.sides.
        inside: a function that returns a context manager within which the model carries the edit.
    """

    def states(which):
        found = {}
        with next(iter(judges.values())).evaluation.same_weights():
            for part, judge in judges.items():
                sides = judge.clip, judge.evaluation, judge.target, judge.pairs, judge.split
                more = membership(*sides, which, seed) if judge.mia else {}
                found[part] = judge.ranks(which), more if which is None else more | one_side(judge, which)
        return found

    before = states(None)
    with inside():
        after = states(edited)
    return {
        part: {
            "original": figures(judge, *before[part]),
            method: figures(judge, *after[part]) | changes(judge, before[part][0], after[part][0], seed),
        }
        for part, judge in judges.items()
    }


def _share(rank):
    return float((rank < 1).float().mean()) if len(rank) else math.nan


def similarity(evaluation, targets, split, edited, *, others=9, seed=0):
    """Cosines of mean picture features and name prompts: (names, (K, K) array, number of pictures), the targets first.

    Args:
        targets: [Target] of one task.
        others: how many other classes of the first one's block stand beside them.
    """
    target, own = targets[0], [t.label for t in targets]
    task = evaluation.tasks[target.task]
    blocks, labels = task.pictures.blocks, task.pictures.labels
    rivals = [c for c in range(len(blocks)) if c not in own and blocks[c] == blocks[target.label]]
    rivals = [c for c in rivals if (labels[split[target.task]] == c).any()]
    g = torch.Generator().manual_seed(seed)
    chosen = [*own, *sorted(rivals[i] for i in torch.randperm(len(rivals), generator=g)[:others].tolist())]
    rows = torch.cat([evaluation.rows(target.task, split[target.task], label=c) for c in chosen])
    features, weights = evaluation.sides(target.task, rows, edited)
    means = torch.stack([features[(labels[rows] == c).to(features.device)].mean(0) for c in chosen])
    means = torch.nn.functional.normalize(means, dim=-1)
    return [task.pictures.names[c] for c in chosen], (means @ weights[chosen].T).cpu().numpy(), len(rows)


def shown(evaluation, target, split, edited, *, count=7, seed=0):
    """Pictures for people: (images (2 * count, 3, S, S), true names, guessed names), first the target's, then others'.

    Drawings never seen come first among the target's pictures; the others are drawn by `seed`.
    """
    task = evaluation.tasks[target.task]
    pictures, g = task.pictures, torch.Generator().manual_seed(seed)
    rivals = pictures.blocks[pictures.labels] == pictures.blocks[target.label]
    parts = []
    for rows in (
        evaluation.rows(target.task, split[target.task], label=target.label),
        evaluation.rows(target.task, split[target.task] & rivals, without=target.label),
    ):
        rows = rows[torch.randperm(len(rows), generator=g)]
        parts.append(rows[pictures.seen[rows].long().argsort(stable=True)][:count] if not parts else rows[:count])
    rows = torch.cat(parts)
    features, weights = evaluation.sides(target.task, rows, edited)
    guess = guesses(features, weights, pictures.labels[rows], pictures.blocks)
    names = pictures.names
    return pictures.images[rows], [names[i] for i in pictures.labels[rows]], [names[i] for i in guess]
