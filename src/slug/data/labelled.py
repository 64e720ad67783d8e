"""Labelled evaluation sets in whatever layout they come: CelebA, ImageNet, a folder for each class, a CSV, CLIP_benchmark's.

A CLIP_benchmark data set is a folder with `classnames.txt`, tars of pictures with their class numbers (`.cls`) in `test/`,
and, where it has its own prompts, `zeroshot_classification_templates.txt` (lines with `{c}` for the class).
"""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from slug import files
from slug.data import evaluation_sets
from slug.data.evaluation_sets import PictureSet
from slug.data.images import PICTURES, Item, Transform, decode, listed
from slug.data.names import plain_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError

LAYOUTS = (
    "a CelebA folder, an ImageNet folder, a folder with a folder for each class, a CSV (image, label), or CLIP_benchmark's"
)
CLASS_NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


class Labelled(NamedTuple):
    """A labelled set, with the prompts of its own where it has any."""

    pictures: PictureSet
    templates: tuple[str, ...] = ()


def load(path: str, transform: Transform, *, workers: int = 0, seed: int = 0) -> Labelled:
    """The labelled set at a path, by what lies there. SlugError: missing, or none of LAYOUTS."""
    found = files.existing(path, "labelled evaluation set", "check --evaluate")
    if found.suffix.lower() == ".csv":
        return Labelled(_of_csv(found, transform, workers))
    if found.is_dir():
        if (found / "list_identity_celeba.txt").is_file():
            return Labelled(evaluation_sets.load_celeba(found, transform, workers=workers))
        if (found / CLASS_NAMES).is_file():
            return _of_benchmark(found, transform, workers)
        folders = sorted(p for p in found.iterdir() if p.is_dir() and not p.name.startswith("."))
        if (found.parent / "classes.csv").is_file() or (folders and all(_is_wordnet(p.name) for p in folders)):
            return Labelled(evaluation_sets.load_imagenet(found, transform, workers=workers, seed=seed))
        if any(_pictures(p) for p in folders):
            return Labelled(_of_folders(folders, transform, workers))
    raise SlugError(f"{found} is no labelled evaluation set that can be read: give {LAYOUTS}")


def _is_wordnet(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdecimal()


def _pictures(folder: Path) -> list[Path]:
    return listed(folder)[0]


def _set(
    where: Path, items: Mapping[str, Item], labels: Sequence[int], names: Sequence[str], transform: Transform, workers: int
) -> PictureSet:
    """Decode {key: picture}; each is a source image of its own."""
    images, kept = decode(list(items.values()), transform, workers=workers, desc=f"decode {where.name}")
    if not len(kept):
        raise SlugError(f"{where}: no picture can be used ({len(items)} tried)")
    keys = [list(items)[i] for i in kept.tolist()]
    blocks, seen = torch.zeros(len(names), dtype=torch.long), torch.ones(len(keys), dtype=torch.bool)
    return PictureSet(
        images, torch.tensor(labels)[kept], list(names), blocks, keys, seen, len(items) - len(keys), tuple(keys)
    )


def _of_folders(folders: Sequence[Path], transform: Transform, workers: int) -> PictureSet:
    items, labels = {}, []
    for label, folder in enumerate(folders):
        for path in _pictures(folder):
            items[str(path)] = path
            labels.append(label)
    return _set(folders[0].parent, items, labels, [plain_name(p.name) for p in folders], transform, workers)


def _of_csv(path: Path, transform: Transform, workers: int) -> PictureSet:
    rows = files.read_csv(path, ("image", "label"), "a labelled CSV has the columns image and label")
    names = sorted({plain_name(r["label"]) for r in rows})
    items = {r["image"]: path.parent / r["image"] for r in rows}
    label_of = {r["image"]: names.index(plain_name(r["label"])) for r in rows}
    return _set(path, items, [label_of[image] for image in items], names, transform, workers)


def _of_benchmark(folder: Path, transform: Transform, workers: int) -> Labelled:
    names = [line for line in files.read_text(folder / CLASS_NAMES).splitlines() if line.strip()]
    tars = sorted((folder / "test").glob("*.tar"))
    items: dict[str, Item] = {}
    classes: dict[str, int] = {}
    for path in tars:
        try:
            with TarMembers(path) as members:
                for member in members:
                    key, _, kind = member.rpartition(".")
                    if kind in PICTURES:
                        items[f"{path.stem}/{key}"] = members[member]
                    elif kind == "cls":
                        classes[f"{path.stem}/{key}"] = int(members[member])
        except (tarfile.TarError, EOFError, OSError, ValueError) as err:
            raise SlugError(f"{path} is not a whole tar of pictures and class numbers ({err}); get it again") from err
    items = {key: item for key, item in items.items() if key in classes}
    if not items or max(classes.values()) >= len(names):
        raise SlugError(f"{folder} has no picture with a class number of its {len(names)} names in test/*.tar; get it again")
    templates: tuple[str, ...] = ()
    if (folder / TEMPLATES).is_file():
        lines = files.read_text(folder / TEMPLATES).splitlines()
        templates = tuple(line.replace("{c}", "{}") for line in lines if "{c}" in line)
    return Labelled(_set(folder, items, [classes[key] for key in items], names, transform, workers), templates)
