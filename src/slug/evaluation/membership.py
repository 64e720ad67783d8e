"""Membership inference: whether the pairs' cosines tell the forget set from pictures that were never trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from slug.data.pairs import Pairs
from slug.evaluation import zeroshot


def accuracy(
    members: Sequence[float] | torch.Tensor,
    others: Sequence[float] | torch.Tensor,
    *,
    seed: int = 0,
    resamples: int = 10,
    splits: int = 10,
) -> tuple[float, float]:
    """Accuracy in % of telling members' pair cosines from others' by logistic regression: (mean, deviation). 50 is chance.

    Each resample cuts the larger set down to the size of the smaller one; each has `splits` stratified splits.

    Args:
        members, others: (N,), (M,) cosines of matched pairs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    sets = np.asarray(members, float), np.asarray(others, float)
    size = min(map(len, sets))
    splits = min(splits, size)
    if splits < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    target = np.repeat([1, 0], size)
    scores = []
    for _ in range(resamples):
        x = np.concatenate([rng.choice(part, size, replace=False) for part in sets])
        x = ((x - x.mean()) / (x.std() + 1e-12))[:, None]  # cosines lie close together: bring them to the penalty's scale
        folds = StratifiedKFold(splits, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in folds.split(x, target):
            scores.append(LogisticRegression().fit(x[train], target[train]).score(x[test], target[test]))
    return 100 * float(np.mean(scores)), 100 * float(np.std(scores))


def of_edit(evaluator: Any, forget_pairs: Pairs) -> dict[str, float]:
    """Membership inference under the edit that the model carries, each picture against the prompt of its own name.

    Members are the forget set's pictures. `mia` tells them from unseen pictures of the same concept; `mia_others`, as
    published, from unseen pictures of other concepts. Where an evaluation set does not say what was seen (CelebA), all its
    pictures count as unseen.

    Args:
        evaluator: ClipEvaluator.
    Returns:
        {"mia_mean", "mia_std", "mia_others_mean", "mia_others_std"}, in %.
    """
    evaluation, target, seed = evaluator.evaluation, evaluator.target, evaluator.seed
    pictures, mask = evaluation.tasks[target.task].pictures, evaluator.masks[target.task]
    unseen = ~pictures.seen if (~pictures.seen).any() else torch.ones_like(pictures.seen)
    same = evaluation.rows(target.task, mask & unseen, label=target.label)
    rivals = pictures.blocks == pictures.blocks[target.label]  # other blocks would need their own classifier
    other = evaluation.rows(target.task, mask & unseen, without=target.label)
    other = other[rivals[pictures.labels[other]]]
    chosen = torch.randperm(len(other), generator=torch.Generator().manual_seed(seed))[: len(forget_pairs.captions)]
    other = other[chosen.sort().values]
    rows = torch.cat([same, other])
    features, weights = evaluation.sides(target.task, rows)
    cosines = (features * weights[pictures.labels[rows]]).sum(1).cpu()
    members = zeroshot.image_features(evaluation.clip, forget_pairs.images, evaluation.batch_size)
    members = (members @ weights[target.label]).cpu()
    mia = accuracy(members, cosines[: len(same)], seed=seed)
    others = accuracy(members, cosines[len(same) :], seed=seed)
    return dict(zip(("mia_mean", "mia_std", "mia_others_mean", "mia_others_std"), (*mia, *others), strict=True))
