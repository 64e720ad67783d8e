"""Marks and sentences in reports for edits that do not show that their name was forgotten."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

COLUMN = "caveat"  # of a table: why an edit does not show that its name was forgotten; only tables with such edits have it
MARK = " (!)"  # beside the name of such an edit, or the method that made it


def of(record: dict[str, Any]) -> dict[str, Any]:
    """The column of a record's row; nothing where the record has no caveat."""
    return {COLUMN: record[COLUMN]} if record.get(COLUMN) else {}


def columns(rows: Iterable[Any]) -> list[str]:
    """The columns that a table of these rows has besides its own."""
    return [COLUMN] if any(row.get(COLUMN) for row in rows) else []


def has(row: Any) -> bool:
    """Whether an edit does not show that its name was forgotten, by its row of a table."""
    return isinstance(row.get(COLUMN), str)


def mark(row: Any) -> str:
    """MARK for a row that has a caveat, else nothing."""
    return MARK if has(row) else ""


def of_part(rows: pd.DataFrame) -> str:
    """MARK for rows of which one has a caveat, else nothing."""
    return MARK if any(has(row) for row in rows.to_dict("records")) else ""


def sentences(frame: pd.DataFrame, *, method: bool = False) -> list[str]:
    """What the marks say, as one paragraph with a line for each edit; empty where all names were forgotten.

    Args:
        method: also name the method.
    """
    rows = [row for row in frame.to_dict("records") if has(row)]
    lines = (f"{MARK.strip()} {r['method'] + ', ' if method else ''}{r['name']}: {r[COLUMN]}." for r in rows)
    return ["\n".join(dict.fromkeys(lines))] if rows else []


def black(frame: pd.DataFrame, row: str = "{method}, {name}") -> list[str]:
    """How many pictures are black all over, and so in no figure; a sentence, or none.

    Args:
        row: what stands for a row, by its columns.
    """
    found = frame[frame["n_black"].gt(0)].to_dict("records") if "n_black" in frame else []
    rows = [{str(column): value for column, value in r.items()} for r in found]
    each = "; ".join(f"{row.format(**r).strip()}: {r['n_black']:.0f}" for r in rows)
    return [f"Pictures that are black all over (NaN, or a safety checker) are in no figure: {each}."] if rows else []
