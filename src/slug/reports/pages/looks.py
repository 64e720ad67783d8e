"""What a page shows of a name besides its record: `looks/{model}-{name}.json`, as a2_unlearn_slug.py writes it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slug import files, schema
from slug.errors import SlugError

Looks = Mapping[str, Any]
IMAGE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+=*")  # holds the picture itself, so that no page loads one


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


text, number, flag = _is(str), _is(int, float), _is(bool)


def _answers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and text(pair[0]) and number(pair[1]) for pair in value
    )


def _image(value: Any) -> bool:
    return isinstance(value, str) and IMAGE.fullmatch(value) is not None


PARTS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "layers": {"name": text, "encoder": text, "importance": number, "alignment": number},
    "pictures": {"image": _image, "name": text, "own": flag, "before": _answers, "after": _answers},
    "by_name": {"task": text, "name": text, "pictures": number, "before": number, "after": number},
}


def read(folder: Path, record: Mapping[str, Any]) -> Looks:
    """What the file of a record's name holds. SlugError, in one line, if it is missing or not as it was written."""
    name = schema.file_name(record["model"], record["name"], ".json")
    path, remedy = folder / schema.LOOKS / name, f"run a2_unlearn_slug.py for {record['name']} again with --force"
    if not path.is_file():
        raise SlugError(f"{schema.LOOKS}/{name} is missing; {remedy}")
    found = files.read_object(path)
    wrong = [part for part, wanted in PARTS.items() if not _rows(found.get(part), wanted)]
    wrong += [] if number(found.get("among")) else ["among"]
    wrong += [] if _matrices(found.get("names"), found.get("cosines")) else ["cosines"]
    if wrong:
        raise SlugError(f"{schema.LOOKS}/{name} has no sound {wrong[0]}; {remedy}")
    return found


def _rows(value: Any, wanted: Mapping[str, Callable[[Any], bool]]) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, dict) and all(key in row and check(row[key]) for key, check in wanted.items()) for row in value
    )


def _matrices(names: Any, cosines: Any) -> bool:
    if not (isinstance(names, list) and all(map(text, names)) and isinstance(cosines, dict)):
        return False
    found = [cosines.get("before"), cosines.get("after")]
    return number(cosines.get("pictures")) and all(
        isinstance(m, list)
        and len(m) == len(names)
        and all(isinstance(row, list) and len(row) == len(names) and all(map(number, row)) for row in m)
        for m in found
    )


def cells(looks: Looks) -> list[list[dict[str, Any]]]:
    """The cosines of the names, row by row: {before, after, change}."""
    before, after = (looks["cosines"][when] for when in ("before", "after"))
    return [
        [{"before": a, "after": b, "change": b - a} for a, b in zip(*rows, strict=True)]
        for rows in zip(before, after, strict=True)
    ]


def suffered(looks: Looks, most: int = 10) -> list[Mapping[str, Any]]:
    """The retained names that lost the most test pictures, at most `most`."""
    lost = [row for row in looks["by_name"] if row["after"] < row["before"]]
    return sorted(lost, key=lambda r: (r["after"] - r["before"], r["after"] / max(r["pictures"], 1), r["name"]))[:most]


def moved(looks: Looks) -> dict[str, int]:
    """How many retained names lost and gained test pictures, and how many pictures."""
    changes = [row["after"] - row["before"] for row in looks["by_name"]]
    down, up = [-c for c in changes if c < 0], [c for c in changes if c > 0]
    return {"lost_names": len(down), "lost": sum(down), "gained_names": len(up), "gained": sum(up)}
