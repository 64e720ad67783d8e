"""Methods compared name by name: who wins, by how much, with a correction for the number of comparisons; mean ranks."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from slug.reports import intervals


class Pair(NamedTuple):
    """One method against the reference, on the names that both were run on.

    Attributes:
        names, won, lost: counts of names; the others are ties.
        change: (mean, low, high) of the difference in retained accuracy, in points; a t interval over names.
        p, corrected: two-sided sign test of won against lost, and by Holm's correction over all methods.
    """

    method: str
    names: int
    won: int
    lost: int
    change: tuple[float, float, float]
    p: float
    corrected: float


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values, in their order."""
    out, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        out[i] = worst
    return out


def sign_test(won: int, lost: int) -> float:
    """Two-sided p value of `won` against `lost` if both were as likely; 1 where all are ties."""
    from scipy import stats

    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def score(rows: pd.DataFrame, max_forget: float) -> pd.Series:
    """What names are won by: a method that forgets on the test split beats one that does not; among equals the mean retained
    change, in points, decides."""
    retained = 100 * (rows["identities_change"] + rows["objects_change"]) / 2
    return retained + 1000 * (rows["forget_acc1"] <= max_forget + 1e-9)


def by_name(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A table (names, methods) of a column, of the names that every method has."""
    return frame.pivot_table(index="name", columns="method", values=column, observed=True).dropna()


def against(frame: pd.DataFrame, reference: str, max_forget: float) -> list[Pair]:
    """Every other method of a table (a row for each method and name) against `reference`."""
    retained = 50 * (frame["identities_change"] + frame["objects_change"])
    return pairs(frame.assign(score=score(frame, max_forget), retained=retained), reference)


def pairs(frame: pd.DataFrame, reference: str) -> list[Pair]:
    """Every other method of a table against `reference`; a name is won by the higher `score`.

    Args:
        frame: a row for each method and name, with columns score and retained (accuracy, in points).
    """
    found = []
    for method in (m for m in frame["method"].unique() if m != reference):
        part = frame[frame["method"].isin([method, reference])]
        scores, kept = (by_name(part.assign(method=part["method"].astype(str)), c) for c in ("score", "retained"))
        if scores.empty or len(scores.columns) < 2:
            continue
        difference = scores[method] - scores[reference]
        won, lost = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
        change = intervals.mean_interval((kept[method] - kept[reference]).to_numpy())
        found.append(Pair(method, len(scores), won, lost, change, sign_test(won, lost), math.nan))
    return [pair._replace(corrected=p) for pair, p in zip(found, holm([f.p for f in found]), strict=True)]


def mean_ranks(frame: pd.DataFrame, max_forget: float) -> tuple[dict[str, float], int]:
    """({method: mean rank over names, 1 is best}, number of names), of the names that every method was run on."""
    table = by_name(frame.assign(score=score(frame, max_forget), method=frame["method"].astype(str)), "score")
    ranks = table.rank(axis=1, ascending=False).mean()
    return {str(m): float(r) for m, r in ranks.sort_values().items()}, len(table)


def critical_difference(methods: int, names: int, level: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks (Demsar, JMLR 2006); NaN for fewer than two methods or names."""
    from scipy import stats

    if methods < 2 or names < 2:
        return math.nan
    q = stats.studentized_range.ppf(1 - level, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * names)))


def cliques(ranks: Mapping[str, float], difference: float) -> list[tuple[float, float]]:
    """The largest ranges (best, worst) of mean ranks within which no two methods differ by `difference`; of two methods or
    more."""
    values = sorted(ranks.values())
    found = [(v, max(w for w in values if w - v < difference)) for v in values]
    wide = [(a, b) for a, b in found if b > a]
    return [
        r
        for i, r in enumerate(wide)
        if not any(o[0] <= r[0] and r[1] <= o[1] for j, o in enumerate(wide) if j != i and o != r)
    ]
