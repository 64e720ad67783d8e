"""Membership inference: whether a model tells the forget set's pictures from others."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from slug.evaluation import zeroshot


def membership(clip, evaluation, target, forget_pairs, split, edited, seed):
    """Membership inference on pair cosines, each picture against the prompt of its own name.

    Members are the forget set's pictures. `mia` tells them from left-out drawings of the same concept, the second figure,
    as published, from unseen pictures of other concepts. Where an evaluation set does not say what was seen (CelebA), all
    its pictures count as unseen.

    Args:
        forget_pairs: data.Pairs.
        split: (N,) bool mask of the target's task, or {task: mask}.
        edited: see Evaluation.sides.
    Returns:
        {"mia_mean", "mia_std", "mia_others_mean", "mia_others_std"}, in %.
    """
    task = evaluation.tasks[target.task]
    unseen = ~task.pictures.seen if (~task.pictures.seen).any() else torch.ones_like(task.pictures.seen)
    same = evaluation.rows(target.task, split[target.task] & unseen, label=target.label)
    rivals = task.pictures.blocks == task.pictures.blocks[target.label]  # other blocks would need their own classifier
    other = evaluation.rows(target.task, split[target.task] & unseen, without=target.label)
    other = other[rivals[task.pictures.labels[other]]]
    chosen = torch.randperm(len(other), generator=torch.Generator().manual_seed(seed))[: len(forget_pairs.captions)]
    other = other[chosen.sort().values]
    rows = torch.cat([same, other])
    features, weights = evaluation.sides(target.task, rows, edited)
    cosines = (features * weights[task.pictures.labels[rows]]).sum(1).cpu()
    members = zeroshot.image_features(clip, forget_pairs.images, evaluation.batch_size)
    members = (members @ weights[target.label]).cpu()
    mia = membership_inference(members, cosines[: len(same)], seed=seed)
    others = membership_inference(members, cosines[len(same) :], seed=seed)
    return dict(zip(("mia_mean", "mia_std", "mia_others_mean", "mia_others_std"), (*mia, *others), strict=True))


def membership_inference(members, others, *, seed=0, resamples=10, splits=10):
    """Accuracy in % of telling members' pair cosines from others' by logistic regression: (mean, deviation).

    The larger set is cut down to the smaller one's size in each resample; each has `splits` stratified splits (PAPER.md,
    section 3). 50 is chance.

    Args:
        members, others: (N,), (M,) cosines of matched pairs.
    """
    members, others = np.asarray(members, float), np.asarray(others, float)
    size = min(len(members), len(others))
    splits = min(splits, size)
    if splits < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    target = np.repeat([1, 0], size)
    scores = []
    for _ in range(resamples):
        x = np.concatenate([rng.choice(members, size, replace=False), rng.choice(others, size, replace=False)])
        x = ((x - x.mean()) / (x.std() + 1e-12))[:, None]  # cosines lie close together: bring them to the penalty's scale
        folds = StratifiedKFold(splits, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in folds.split(x, target):
            scores.append(LogisticRegression().fit(x[train], target[train]).score(x[test], target[test]))
    return 100 * float(np.mean(scores)), 100 * float(np.std(scores))
