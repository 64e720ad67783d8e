"""By whose rules a table was made: its protocol, and what its constants were."""

import json
from typing import Any

import pandas as pd

from slug import protocols
from slug.settings import MAX_FORGET

BEGINNING = "Protocol: "


def flags_of(frame: pd.DataFrame, flag: str) -> list[Any]:
    """The values of a flag that the runs of a table had: its column, or what `settings` or `made_with`, JSON, says of it."""
    if flag in frame:
        return sorted(frame[flag].dropna().unique())
    found = set()
    for column, key in (("settings", "flags"), ("made_with", "settings")):
        for text in frame[column].dropna().unique() if column in frame else ():
            said = json.loads(text)
            part = said.get(key, {}) if isinstance(said, dict) else {}
            found.add(part.get(flag) if isinstance(part, dict) else None)
    return sorted(found - {None})


def protocols_of(frame: pd.DataFrame) -> list[protocols.Protocol]:
    """The protocols that the rows of a table were made by; rows that name none were made by ours."""
    return [protocols.get(name) for name in flags_of(frame, "protocol")] or [protocols.OURS]


def max_forget(frame: pd.DataFrame) -> float:
    """The forget accuracy up to which a name counted as forgotten; of several the largest, and the default of old tables."""
    return max(map(float, flags_of(frame, "max_forget")), default=MAX_FORGET)


def line(frame: pd.DataFrame) -> str:
    """The names of a table's protocols, as Markdown."""
    return f"{BEGINNING}**{' and '.join(p.name for p in protocols_of(frame))}** (docs/reproduce.md)."


def said(frame: pd.DataFrame, *, canvas: bool = False) -> str:
    """`line`, and the points of those protocols that are not ours; `canvas`, with those of UnlearnCanvas."""
    points = [p for q in protocols_of(frame) if q != protocols.OURS for p in protocols.points(q, canvas=canvas)]
    return "\n".join([line(frame), *([""] if points else []), *(f"* {row}: {meaning}." for row, meaning in points)])
