"""What the explorer shows: delta files of a results folder, and a sample of evaluation pictures with their names."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from slug import files
from slug.artifacts.delta_files import ENDING
from slug.data import evaluation_sets
from slug.data.images import evenly_spaced, listed
from slug.data.names import clean_name, plain_name
from slug.errors import SlugError

MANY, FEW, NAMES = 24, 2, 60  # pictures of a forgotten name, of another one; names that pictures are told apart by


class Picture(NamedTuple):
    """An evaluation picture."""

    path: str
    name: str  # what it shows, as prompts say it


def key(name: str) -> str:
    """A name as it is compared: without underscores and case."""
    return plain_name(name).casefold()


def deltas(folder: str | Path) -> list[Path]:
    """The delta files below a folder, or the one that is given. SlugError: there are none."""
    place = files.existing(folder, "results folder", "run bash scripts/run_clip_slug.sh, or give --results")
    found = [place] if place.is_file() else sorted(place.rglob(f"*{ENDING}"))
    if not found:
        raise SlugError(f"{place} holds no file *{ENDING}; run bash scripts/run_clip_slug.sh, or give --results")
    return found


def pictures(folder: str | Path) -> list[Picture]:
    """The pictures of a labelled set, by its lists alone: CelebA's layout, ImageNet's, or a folder for each name.

    SlugError: no folder, or none of these.
    """
    place = files.existing(folder, "folder of evaluation pictures", "give --pictures")
    if (place / "list_identity_celeba.txt").is_file():
        shown = {clean_name(n) for n in files.read_text(place / "frequent_celebs.txt").splitlines() if n.strip()}
        names = evaluation_sets.celeba_names(place)
        found = [Picture(str(place / "img_align_celeba" / image), n) for image, n in names.items() if n in shown]
    elif (place.parent / "classes.csv").is_file():
        rows = evaluation_sets.imagenet_classes(place)
        there = evaluation_sets.imagenet_pictures(place, rows)[0]
        found = [Picture(str(path), rows[place_.partition("/")[0]][0]) for place_, path in there.items()]
    else:
        found = [Picture(str(p), plain_name(p.parent.name)) for p in listed(place)[0] if p.parent != place]
    if not found:
        raise SlugError(
            f"{place} holds no labelled pictures; give a CelebA folder, an ImageNet folder or a folder for each name"
        )
    return found


def sample(found: Sequence[Picture], forgotten: Iterable[str]) -> list[Picture]:
    """At most MANY pictures of each forgotten name, then FEW of each of NAMES others, evenly spaced."""
    wanted = {key(n) for n in forgotten}
    by_name: dict[str, list[Picture]] = {}
    for picture in found:
        by_name.setdefault(picture.name, []).append(picture)
    mine = [n for n in by_name if key(n) in wanted]
    others = evenly_spaced([n for n in by_name if key(n) not in wanted], NAMES)
    kept = [evenly_spaced(by_name[n], MANY) for n in mine] + [evenly_spaced(by_name[n], FEW) for n in others]
    return [picture for part in kept for picture in part]


def names_of(text: str) -> list[str]:
    """The names in a box, one in each line, each once. SlugError: fewer than two."""
    found = {key(line.strip()): line.strip() for line in reversed(text.splitlines()) if line.strip()}
    if len(found) < 2:
        raise SlugError("type two names at least, one in each line: the model chooses among them")
    return list(reversed(found.values()))
