"""Groups of a table, means with intervals over names, paired changes, and their text."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def groups(frame: pd.DataFrame, by: str | list[str], **how: Any) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The groups of a table, as (key, rows)."""
    yield from frame.groupby(by, **how)


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): the mean over names and its t interval, which is NaN for a single name."""
    from scipy import stats

    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), math.nan, math.nan
    margin = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - margin), float(values.mean() + margin)


def points(values: pd.Series) -> tuple[float, float, float]:
    """`mean_interval` in points of paired changes, given as fractions."""
    return mean_interval(100 * values)


def spread(low: float, high: float, form: str) -> str:
    """` (low to high)`, or nothing if there is no interval."""
    return "" if math.isnan(low) else f" ({low:{form}} to {high:{form}})"


def cell(values: pd.Series) -> str:
    """A mean accuracy in % with its interval, cut at 0 and 100; empty if nothing was evaluated. Values that are all equal
    have no interval: they say nothing of how far others may lie from them."""
    mean, low, high = mean_interval(100 * values)
    interval = "" if low == high else spread(max(low, 0), min(high, 100), ".1f")
    return "" if math.isnan(mean) else f"{mean:.1f}{interval}"


def change(values: pd.Series, form: str = "+.1f") -> str:
    """A mean paired change in points with its interval, as `cell` has it; empty if nothing was evaluated."""
    mean, low, high = points(values)
    interval = "" if low == high else spread(low, high, form)
    return "" if math.isnan(mean) else f"{mean:{form}}{interval}"


def ends(row: Mapping[Any, Any] | pd.Series, column: str) -> tuple[float, float, float]:
    """(change, low, high): a name's paired change with its bootstrap interval, in points."""
    change, low, high = (100 * row[f"{column}_change{end}"] for end in ("", "_low", "_high"))
    return change, low, high


def paired(row: Mapping[Any, Any] | pd.Series, column: str, form: str = "+.2f") -> str:
    """`ends` as text."""
    mean, low, high = ends(row, column)
    return f"{mean:{form}}{spread(low, high, form)}"


def verdict(row: Mapping[Any, Any] | pd.Series, column: str, margin: float) -> str:
    """`within` if a paired change is at most `margin` points below zero, else `beyond`; or `not resolved`."""
    mean, low, high = ends(row, column)
    if high - low > 2 * margin:
        return "not resolved"
    return "within" if mean >= -margin else "beyond"
