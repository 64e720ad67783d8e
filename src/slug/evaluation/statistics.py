"""Intervals of fractions and of paired differences."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval (low, high) of the fraction `correct` of `total` independent trials.

    Where none or all are correct, the other end is the one-sided bound at `level`: the upper bound that a zero is read with.
    """
    if total == 0:
        return 0.0, 1.0
    tail = (1 - level) if correct in (0, total) else (1 - level) / 2
    low = stats.beta.ppf(tail, correct, total - correct + 1) if correct > 0 else 0.0
    high = stats.beta.ppf(1 - tail, correct + 1, total - correct) if correct < total else 1.0
    return float(low), float(high)


def paired_difference(
    before: ArrayLike, after: ArrayLike, groups: ArrayLike, *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of after - before over pictures, with its bootstrap interval over groups: (mean, low, high).

    Args:
        before, after: (N,) bool or 0/1, of the same pictures in the same order.
        groups: (N,) the source image of each picture. Whole groups are drawn with replacement, since pictures of one source
            image are not independent.
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
