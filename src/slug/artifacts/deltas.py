"""Deltas on disk: what is done with them. Delta files are written and read, model folders edited, reverted and sealed.

The format of delta files is in slug.artifacts.delta_files, edited folders are in slug.artifacts.edited_folders.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from slug import files
from slug.artifacts import edited_folders
from slug.artifacts.cards import Header
from slug.artifacts.delta_files import ENDING, REMEDY, native, of_each_tower, of_model, read, save
from slug.artifacts.folders import EDITS
from slug.errors import SlugError

__all__ = ["apply", "native", "of_each_tower", "of_folder", "of_model", "read", "revert", "save", "seal"]

Paths = str | Path | Iterable[str | Path]
Say = Callable[[str], None]  # takes each line of what was edited, left out and checked


def _nothing(line: str) -> None:
    pass


def _listed(given: Paths) -> list[str | Path]:
    return [given] if isinstance(given, (str, Path)) else list(given)


def of_folder(folder: str | Path) -> dict[str, Header]:
    """{file name: header} of the deltas that are applied to a model folder. SlugError if there is no such folder."""
    files.recover_folder(files.resolve(folder))
    found = files.existing(folder, "model folder", "give --model-dir") / EDITS
    return {p.name: read(p)[1] for p in sorted(found.glob(f"*{ENDING}"))}


def apply(
    paths: Paths, source: str | Path, out: str | Path, *, seal: bool = False, partial: bool = False, say: Say = _nothing
) -> Path:
    """Write the model folder `source` with one or more deltas applied to `out`, which may be `source`.

    Every copy of the weights is edited, and each delta edits those encoders of a pipeline that it was made for. Libraries
    load the result as they load the original. Returns the folder. SlugError: a wrong base, a delta that is applied already,
    two of one file name, or an `out` that is not empty.

    Args:
        seal: keep nothing in the folder from which the original can be computed; see `seal`.
        partial: allow text encoders that no delta edits.
        say: called with each line of what was edited, left out and checked.
    """
    named: dict[str, Path] = {}
    for path in [files.existing(p, "delta", REMEDY) for p in _listed(paths)]:
        name = _kept_as(path)
        if name in named:
            raise SlugError(f"{named[name]} and {path} would both be kept as {name}; give each once, or rename one")
        named[name] = path
    return edited_folders.edit(source, out, named, set(), seal=seal, partial=partial, say=say)


def _kept_as(path: Path) -> str:
    """The name of a delta file in an edited folder: `owl.safetensors` is kept as `owl.delta.safetensors`."""
    return path.name if path.name.endswith(ENDING) else f"{path.name.removesuffix('.safetensors')}{ENDING}"


def revert(names: Paths, source: str | Path, out: str | Path, *, say: Say = _nothing) -> Path:
    """Write the edited folder `source` without one or more of its deltas to `out`, exact to the bit. Returns the folder.

    Of each path in `names` only the file name counts. SlugError: a delta is not applied, or `out` is not empty.
    """
    return edited_folders.edit(source, out, {}, {_kept_as(Path(n)) for n in _listed(names)}, say=say)


def seal(source: str | Path, out: str | Path, *, say: Say = _nothing) -> Path:
    """Write the edited folder `source` to `out` with nothing from which the original can be computed: for giving it away.

    Its deltas stay in the weights, and its card tells of them; neither they nor the original tensors are kept beside them.
    A sealed folder cannot be reverted.
    """
    return edited_folders.edit(source, out, {}, set(), seal=True, say=say)
