"""Intervals of shares and of paired differences."""

import numpy as np
from scipy import stats


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
