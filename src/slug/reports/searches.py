"""The candidates of a search as plots and pages show them: read from CSV, curve by curve, with their retained accuracy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slug import schema
from slug.errors import SlugError
from slug.reports import reading

Record = Mapping[str, Any]
TRACES = [f"{task}_trace" for task in schema.TASKS]
EXACT = [f"{task}_acc1" for task in schema.TASKS]


def read_steps(folder: Path, record: Record) -> pd.DataFrame:
    """The candidates of a record, from their CSV. SlugError if it is not as the record's stage wrote it."""
    remedy = f"run the stage of {record['method']} for {record['name']} again with --force"
    return reading.csv_table(folder / schema.steps_file(dict(record)), reading.STEPS, remedy)


def curve(part: pd.DataFrame, start: Mapping[str, Any] | pd.Series, task: str) -> tuple[np.ndarray, np.ndarray]:
    """(exact accuracies, accuracies estimated from a few pictures) of candidates, NaN where there are none.

    An estimate is the accuracy of the unedited model, `start`, plus the change on the few pictures.
    """
    exact = part[f"{task}_acc1"].to_numpy(float)
    trace = np.full(len(part), np.nan)
    if f"{task}_trace" in part and f"{task}_trace" in start:
        change = part[f"{task}_trace"].to_numpy(float) - start[f"{task}_trace"]
        trace = np.where(np.isnan(exact), np.maximum(change + start[f"{task}_acc1"], 0), np.nan)
    return exact, trace


def best_layers(rows: pd.DataFrame, winner: Mapping[str, Any], retained: Sequence[str] = schema.TASKS) -> list[str]:
    """The layers of a search, that of the winner first, then by the best retained accuracy of their exact candidates."""
    means = rows[[f"{task}_acc1" for task in retained]].mean(axis=1, skipna=False)
    best = means.groupby(rows["layer"], sort=False).max().fillna(-1).sort_values(ascending=False, kind="stable")
    return sorted(best.index, key=lambda layer: layer != winner["layer"])


def with_retained(rows: pd.DataFrame) -> pd.DataFrame:
    """Candidates, the unedited model first, with a column `retain`: the mean of the retained accuracies on the few pictures
    that every candidate was evaluated on where there are such, else of the exact ones; NaN where neither was evaluated."""
    rows = rows.reindex(columns=[*reading.STEPS, *TRACES])
    few = rows[TRACES].mean(axis=1, skipna=False)
    return rows.assign(retain=few.fillna(rows[EXACT].mean(axis=1, skipna=False)))


def chosen(rows: pd.DataFrame, record: Record, path: Path) -> pd.Series:
    """The candidate that a record chose. SlugError where `path`, which the rows are of, lacks it."""
    found = rows[(rows["layer"] == record["layer"]) & np.isclose(rows["step"], record["step"])]
    if found.empty:
        raise SlugError(f"{path} lacks the candidate that was chosen; run its stage again")
    return found.iloc[0]
