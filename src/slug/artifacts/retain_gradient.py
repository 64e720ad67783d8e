"""Where the one retain gradient of a model lies, and how the folders of names link to it."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slug import files
from slug.errors import SlugError


def of_another_model(file: Path, model: str) -> bool:
    """Whether a gradient file says that it is of another model than the one with this hash."""
    try:
        return files.read_object(file.with_suffix(".json")).get("model", model) != model
    except SlugError:
        return False


def path(plain: Path, mark: Mapping[str, Any], *, claim: bool = False) -> Path:
    """Where the retain gradient with this mark lies: at `plain`, or beside it where the gradient there leaves out other
    names, whose files are links to it. With `claim` no process that runs at the same time takes `plain` from then on."""
    digest = hashlib.sha256(repr(mark["left_out"]).encode()).hexdigest()[:8]
    beside = plain.with_name(f"{plain.stem}-{digest}{plain.suffix}")
    try:
        found = files.read_object(plain.with_suffix(".json"))
    except SlugError:  # none, or one that is being written
        if plain.exists():
            return beside
        if claim:
            try:
                plain.parent.mkdir(parents=True, exist_ok=True)
                plain.open("xb").close()
            except FileExistsError:
                return beside
            except OSError as err:
                raise SlugError(f"cannot write {plain}: {err.strerror}; check the folder's permissions and space") from err
        return plain
    others = found.get("left_out") != mark["left_out"]
    stale = any(found.get(k) != v for k, v in mark.items() if k != "left_out")
    return beside if others and not stale else plain


def link(source: Path, target: Path) -> None:
    """Make `target` a relative link to `source`, replacing what stood there."""
    if source == target:  # a name that is called as the folder of the retain gradient is
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as temporary:
        os.symlink(os.path.relpath(source, target.parent), temporary)
