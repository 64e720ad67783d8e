"""Accuracies with their uncertainty, and membership inference. Fractions unless a name says %."""

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold


def interval(correct, total, level=0.95):
    """Clopper-Pearson interval (low, high) of a share of `correct` in `total` independent trials.

    For zero correct the high end is one-sided at `level`, the upper bound a zero is to be read with.
    """
    if total == 0:
        return 0.0, 1.0
    tail = (1 - level) if correct in (0, total) else (1 - level) / 2
    low = stats.beta.ppf(tail, correct, total - correct + 1) if correct > 0 else 0.0
    high = stats.beta.ppf(1 - tail, correct + 1, total - correct) if correct < total else 1.0
    return float(low), float(high)


def paired_difference(before, after, groups, *, seed=0, draws=2000, level=0.95):
    """Mean of after - before over pictures, with a bootstrap interval over groups (drawings).

    Args:
        before, after: (N,) bool or 0/1, the same pictures in the same order.
        groups: (N,) labels; whole groups are drawn with replacement, as pictures of one drawing are not independent.
    Returns:
        (mean, low, high).
    """
    change = np.asarray(after, float) - np.asarray(before, float)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(index, change), np.bincount(index)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(1) / sizes[picks].sum(1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(change.mean()), float(low), float(high)


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
