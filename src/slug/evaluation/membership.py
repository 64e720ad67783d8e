"""Membership inference: whether the pairs' cosines tell the forget set from pictures that were never trained on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from slug.evaluation import zeroshot

if TYPE_CHECKING:
    from slug.evaluation.clip_evaluator import ClipEvaluator


RESAMPLES, SPLITS = 10, 10
Cosines = Sequence[float] | torch.Tensor  # (N,) of matched pairs


def accuracy(members: Cosines, others: Cosines, *, seed: int = 0) -> tuple[float, float]:
    """Accuracy in % of telling members' pair cosines from others' by logistic regression: (mean, deviation). 50 is chance.

    Each of RESAMPLES cuts the larger set down to the size of the smaller one, and has at most SPLITS stratified splits.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    sets = np.asarray(members, float), np.asarray(others, float)
    size = min(map(len, sets))
    if size < 2:
        return float("nan"), float("nan")
    rng, target, scores = np.random.default_rng(seed), np.repeat([1, 0], size), []
    for _ in range(RESAMPLES):
        x = np.concatenate([rng.choice(part, size, replace=False) for part in sets])
        x = ((x - x.mean()) / (x.std() + 1e-12))[:, None]  # cosines lie close together: bring them to the penalty's scale
        folds = StratifiedKFold(min(SPLITS, size), shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in folds.split(x, target):
            scores.append(LogisticRegression().fit(x[train], target[train]).score(x[test], target[test]))
    return 100 * float(np.mean(scores)), 100 * float(np.std(scores))


def of_edit(evaluator: "ClipEvaluator") -> dict[str, float]:
    """Membership inference under the edit that the model carries, each picture against the prompt of its own name: the
    columns mia_mean, mia_std, mia_others_mean and mia_others_std, in %; none where the evaluator has no forget set.

    Members are the forget set's pictures. `mia` tells them from unseen pictures of the same concept; `mia_others`, as
    published, from unseen pictures of other concepts. Where an evaluation set does not say what was seen (CelebA), all its
    pictures count as unseen.
    """
    pairs = evaluator.pairs
    if pairs is None:
        return {}
    evaluation, target, seed = evaluator.evaluation, evaluator.target, evaluator.seed
    pictures, mask = evaluation.tasks[target.task].pictures, evaluator.masks[target.task]
    unseen = ~pictures.seen if (~pictures.seen).any() else torch.ones_like(pictures.seen)
    same = evaluation.rows(target.task, mask & unseen, label=target.label)
    rivals = pictures.blocks == pictures.blocks[target.label]  # other blocks would need their own classifier
    other = evaluation.rows(target.task, mask & unseen, without=target.label)
    other = other[rivals[pictures.labels[other]]]
    chosen = torch.randperm(len(other), generator=torch.Generator().manual_seed(seed))[: len(pairs.captions)]
    rows = torch.cat([same, other[chosen.sort().values]])
    features, weights = evaluation.sides(target.task, rows)
    cosines = (features * weights[pictures.labels[rows]]).sum(1).cpu()
    members = zeroshot.image_features(evaluation.clip, pairs.images, evaluation.batch_size)
    members = (members @ weights[target.label]).cpu()
    mia = accuracy(members, cosines[: len(same)], seed=seed)
    others = accuracy(members, cosines[len(same) :], seed=seed)
    return dict(zip(("mia_mean", "mia_std", "mia_others_mean", "mia_others_std"), (*mia, *others), strict=True))
