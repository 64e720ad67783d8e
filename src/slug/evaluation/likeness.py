"""What is left of a name's pictures in a model: found by each other, by a probe, and under other names.

Zero-shot recognition asks for one text. These figures ask the picture features, which an edit of the text tower leaves as
they are, and other texts. Each is read beside the unedited model, and beside one that never saw the name.
"""

from collections.abc import Mapping, Sequence

import torch

from slug.evaluation import zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator


def retrieved(features: torch.Tensor, own: torch.Tensor, labels: torch.Tensor, groups: Sequence[str]) -> float:
    """Recall@1 from picture to picture: the share of the pictures `own` whose nearest picture of another source image shows
    the same name.

    Args:
        features: (N, D), unit.
        own: (n,) their positions.
        labels, groups: names (N,) and source images of the pictures.
    """
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    source = torch.tensor([numbers[group] for group in groups])
    cosines = (features[own] @ features.T).cpu()
    nearest = cosines.masked_fill(source[own, None] == source, -torch.inf).argmax(1)
    return (labels[nearest] == labels[own]).float().mean().item()


def told_apart(
    known: torch.Tensor, others: torch.Tensor, own: torch.Tensor, rest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a linear probe calls features the name: (own (n,), rest (m,)), bool.

    Args:
        known, others: features that it is trained on, of the name and of other names.
        own, rest: features that it is tested on, likewise.
    """
    from sklearn.linear_model import LogisticRegression

    # On unit features the default penalty is strong, as it should be where a few source images stand for the name.
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(torch.cat([known, others]).cpu().numpy(), [1] * len(known) + [0] * len(others))
    said = torch.as_tensor(model.predict(torch.cat([own, rest]).cpu().numpy())) == 1
    return said[: len(own)], said[len(own) :]


def figures(evaluators: Mapping[str, ClipEvaluator], aliases: Sequence[str]) -> dict[str, float]:
    """Of the model as it is, on the test split, as columns.

    retrieval_acc1 is `retrieved`, among all pictures of the names that compete with it; probe_acc is the balanced accuracy
    of `told_apart`, trained on the validation split; alias_acc1 is the highest zero-shot accuracy where one of n_aliases
    other names stands for the name.

    Args:
        evaluators: {split: ClipEvaluator} of the name.
    """
    test, features, rows = evaluators["test"], {}, {}
    evaluation, target = test.evaluation, test.target
    pictures = evaluation.tasks[target.task].pictures
    rivals = pictures.blocks[pictures.labels] == pictures.blocks[target.label]
    for split, e in evaluators.items():
        others = e.retain_rows.get(target.task, torch.empty(0, dtype=torch.long))
        rows[split] = e.forget_rows, others[rivals[others]]
        whole, _ = evaluation.sides(target.task, torch.cat(rows[split]))
        features[split] = whole.split([len(r) for r in rows[split]])
    every = torch.cat(rows["test"])
    groups, own = [pictures.groups[i] for i in every.tolist()], torch.arange(len(rows["test"][0]))
    row = {"retrieval_acc1": retrieved(torch.cat(features["test"]), own, pictures.labels[every], groups)}
    if all(len(part) for parts in rows.values() for part in parts):
        hit, wrong = told_apart(*features["validation"], *features["test"])
        row["probe_acc"] = (hit.float().mean().item() + 1 - wrong.float().mean().item()) / 2
    return row | called_otherwise(test, aliases)


def called_otherwise(evaluator: ClipEvaluator, aliases: Sequence[str]) -> dict[str, float]:
    """alias_acc1 and n_aliases of `figures`; without the first where there is no other name."""
    evaluation, target, rows = evaluator.evaluation, evaluator.target, evaluator.forget_rows
    task, found = evaluation.tasks[target.task], []
    features, weights = evaluation.sides(target.task, rows)
    weights = weights.clone()
    for direction in zeroshot.classifier(evaluation.clip, list(aliases), task.templates) if aliases else ():
        weights[target.label] = direction
        rank = zeroshot.ranks(features, weights, task.pictures.labels[rows], task.pictures.blocks)
        found.append(zeroshot.accuracies(rank)[0])
    return {"n_aliases": len(found)} | ({"alias_acc1": max(found)} if found else {})
