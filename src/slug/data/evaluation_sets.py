"""Evaluation sets: labelled pictures in the layouts of CelebA and ImageNet (data/README.md)."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from slug import files, progress
from slug.data.images import PICTURES, Transform, decode_files, is_system, listed, told
from slug.data.names import clean_name, plain_name
from slug.errors import SlugError

PICTURE = re.compile(rf".+\.(?:{'|'.join(PICTURES)})", re.I)  # file name of a picture


class PictureSet(NamedTuple):
    """Labelled pictures: N pictures of C classes."""

    images: torch.Tensor  # (N, 3, S, S) uint8
    labels: torch.Tensor  # (N,) index into `names`
    names: list[str]  # C class names, as prompts say them
    blocks: torch.Tensor  # (C,) a picture is classified among the classes of its own block
    groups: list[str]  # (N,) the source image of each picture; pictures of one group stay in one split
    seen: torch.Tensor  # (N,) bool: the source image was in the model's training data
    broken: int  # pictures left out because they cannot be decoded
    paths: tuple[str, ...] = ()  # (N,)
    left_out: Mapping[str, int] = {}  # {why: pictures of the evaluation that could not be used}
    unlisted: frozenset[int] = frozenset()  # labels whose pictures are there for forgotten names alone, in no mean


def _groups(folder: Path) -> dict[str, tuple[str, bool]] | None:
    """{picture: (source image, whether it was seen)} of a folder's groups.csv; None if there is none."""
    path = folder / "groups.csv"
    if not path.is_file():
        return None
    rows = files.read_csv(path, ("image", "group", "seen"), "make the folder again")
    return {r["image"]: (r["group"], r["seen"] == "1") for r in rows}


def _picture_set(
    folder: Path,
    paths: dict[str, Path],
    labels: list[int],
    classes: list[tuple[str, int]],
    decode: Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]],
    *,
    gone: Sequence[str] = (),  # pictures that the folder's lists name besides, and that are not there
    allow_missing: float = 1.0,
) -> PictureSet:
    """Decode the pictures {key: path} of an evaluation folder; `classes` are (name, block).

    groups.csv says which source image each shows; without it each picture is a source image of its own that was seen.
    """
    images, kept = decode([str(p) for p in paths.values()])
    keys = list(paths)
    if not len(kept):
        raise SlugError(f"{folder}: no picture can be used ({len(keys)} tried); see data/README.md for its layout")
    table = _groups(folder) or {n: (n, True) for n in keys}
    missing = [n for n in keys if n not in table]
    if missing:
        more = f" and {len(missing) - 1} others" if missing[1:] else ""
        raise SlugError(
            f"{folder / 'groups.csv'} has no row for {missing[0]}{more}: it would not be known which source image it shows; "
            "add the rows, move the pictures elsewhere, or make the folder again"
        )
    chosen = [keys[i] for i in kept]
    lost = [k for k in keys if k not in set(chosen)] if len(chosen) < len(keys) else []
    damaged = [k for k in lost if paths[k].exists()]
    absent = [*gone, *(k for k in lost if not paths[k].exists())]
    left_out = {"missing": len(absent), "damaged": len(damaged)}
    check_share(folder, left_out, len(keys) + len(gone), [*absent, *damaged], allow_missing)
    groups, seen = [table[k][0] for k in chosen], torch.tensor([table[k][1] for k in chosen])
    names, blocks = [name for name, _ in classes], torch.tensor([block for _, block in classes])
    found = tuple(str(paths[k]) for k in chosen)
    return PictureSet(images, torch.tensor(labels)[kept], names, blocks, groups, seen, len(lost), found, left_out)


def check_share(folder: Path, left_out: dict[str, int], asked: int, lost: Sequence[str], allowed: float) -> None:
    """Tell how many pictures of an evaluation cannot be used; SlugError if they are more than the fraction `allowed`."""
    if not lost:
        return
    why = told(+Counter(left_out))
    said = f"{folder}: {len(lost)} of {asked} pictures of the evaluation cannot be used ({why}), e.g. {lost[0]}"
    if len(lost) > allowed * asked:
        share = math.ceil(1000 * len(lost) / asked) / 1000
        raise SlugError(f"{said}; get them again, or accept figures without them by --allow-missing {share}")
    progress.write(f"note: {said}")


def identity_rows(path: Path) -> dict[str, str]:
    """{image file: identity} of one of CelebA's identity lists, with identities as the file spells them.

    Reads both formats: `list_identity_celeba.txt` (a count, a header and `image identity` rows; the count or the header
    may be missing) and `identity_CelebA.txt` (rows only). SlugError: neither, or not as many rows as the count says.
    """
    lines = [line for line in files.read_text(path, "convert it, e.g. with iconv").splitlines() if line.strip()]
    headed = bool(lines) and lines[0].strip().isdecimal()
    first = next((n for n, line in enumerate(lines[:3]) if PICTURE.fullmatch(line.split()[0])), 0)
    rows = [line.split(maxsplit=1) for line in lines[first:]]
    good = [r for r in rows if len(r) == 2 and PICTURE.fullmatch(r[0])]
    if not good or len(good) < len(rows) or (headed and int(lines[0]) != len(rows)):
        raise SlugError(
            f"{path} is not in CelebA's format (a count, a header, then as many 'image identity' rows): "
            f"{len(good)} good rows of {len(rows)}" + (f", {lines[0].strip()} promised" if headed else "")
        )
    return {image: identity.strip() for image, identity in good}


def celeba_names(root: Path) -> dict[str, str]:
    """{image file: identity} of list_identity_celeba.txt, with identities as people write them (`clean_name`)."""
    path = files.existing(root / "list_identity_celeba.txt", "CelebA's identity list", "ask for it as data/README.md says")
    rows = {image: clean_name(name) for image, name in identity_rows(path).items()}
    if all(name.isdigit() or not name for name in rows.values()):
        raise SlugError(f"{path} holds numbers instead of names; data/README.md says where to ask for the list with names")
    return rows


def load_celeba(
    root: Path,
    transform: Transform,
    *,
    workers: int = 0,
    per_class: int | None = None,
    cache: Path | None = None,
    allow_missing: float = 1.0,
    also: Iterable[str] = (),
) -> PictureSet:
    """The identity evaluation: pictures of the identities in frequent_celebs.txt, with all identities as classes.

    Each has at most `per_class` pictures. The folder also has img_align_celeba/ and list_identity_celeba.txt. Pictures of
    the identities `also` are added; those that the list lacks are `unlisted`. SlugError: a list is missing or damaged, or
    more than the fraction `allow_missing` of the pictures cannot be used.
    """
    root = files.existing(root, "CelebA folder", "give --val-data")
    identity = celeba_names(root)
    frequent = files.existing(
        root / "frequent_celebs.txt", "list of frequent identities", "make it with src/clip/a0_prepare_celeba.py"
    )
    shown = {clean_name(n) for n in files.read_text(frequent).splitlines() if n.strip()}
    names = sorted(set(identity.values()))
    index = {n: i for i, n in enumerate(names)}
    wanted = {plain_name(n).casefold() for n in also}
    unlisted = {n for n in names if n.casefold() in wanted} - shown
    shown |= unlisted
    counts, paths, labels = dict.fromkeys(names, 0), {}, []
    for image, name in identity.items():
        if name in shown and (per_class is None or counts[name] < per_class):
            counts[name] += 1
            paths[image] = root / "img_align_celeba" / image
            labels.append(index[name])
    decode = partial(decode_files, transform=transform, workers=workers, desc="decode identities", cache=cache)
    found = _picture_set(root, paths, labels, [(n, 0) for n in names], decode, allow_missing=allow_missing)
    return found._replace(unlisted=frozenset(index[n] for n in unlisted))


def imagenet_names() -> dict[str, str]:
    """{WordNet id: open_clip's class name} of the 1,000 classes of ImageNet-1k, in class order."""
    import slug.torchvision_cpu  # noqa: F401  (before open_clip and timm)

    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CLASSNAMES, strict=True))


def imagenet_classes(val: Path) -> dict[str, tuple[str, int]]:
    """{class folder: (name in prompts, block)} of an ImageNet-style folder, in class order.

    `classes.csv` (folder, name, block) beside the folder names the classes. Without it the subfolders must be WordNet ids
    of ImageNet-1k, and all its 1,000 classes count, whether or not each has pictures. SlugError if a subfolder has no name.
    """
    table = val.parent / "classes.csv"
    found = sorted(p.name for p in val.iterdir() if p.is_dir() and not is_system(p.name))
    if table.is_file():
        rows = files.read_csv(table, ("folder", "name", "block"), "see data/README.md")
        wrong = next((r["block"] for r in rows if not r["block"].strip().isdecimal()), None)
        if wrong is not None:
            raise SlugError(f"{table} has the block {wrong!r}, which is no number; see data/README.md")
        nameless = next((r["folder"] for r in rows if not any(map(str.isalnum, r["name"]))), None)
        if nameless is not None:
            raise SlugError(f"{table} has no name for the folder {nameless!r}; see data/README.md")
        return {r["folder"]: (r["name"], int(r["block"])) for r in rows if (val / r["folder"]).is_dir()}
    classes = {wnid: (name, 0) for wnid, name in imagenet_names().items()}
    strange = [f for f in found if f not in classes]
    if strange or not found:
        what = f"the folder {strange[0]}, which is no WordNet id of ImageNet-1k" if strange else "no class folders"
        raise SlugError(f"{val} has {what}, and there is no {table} to name it; see scripts/valprep.sh and data/README.md")
    return classes


def imagenet_pictures(val: Path, folders: Iterable[str]) -> tuple[dict[str, Path], Counter[str]]:
    """({"folder/picture": path} of some class folders, in order, and what they hold besides: {what: files})."""
    found: dict[str, Path] = {}
    besides = Counter[str]()
    for folder in (f for f in folders if (val / f).is_dir()):
        paths, more = listed(val / folder)
        found |= {path.relative_to(val).as_posix(): path for path in paths}
        besides += more
    return found, besides


def load_imagenet(
    val: Path,
    transform: Transform,
    *,
    workers: int = 0,
    share: float = 1.0,
    seed: int = 0,
    cache: Path | None = None,
    allow_missing: float = 1.0,
    by_randomstate: bool = False,
) -> PictureSet:
    """The object evaluation: an ImageNet-style folder with one subfolder for each class (`imagenet_classes`).

    Folders of the same name are one class. Two synsets of ImageNet are called `sunglasses` and two `missile`; no prompt
    tells them apart, so as separate classes neither could ever be right. `share` is the fraction of the pictures that is
    drawn by `seed`; with `by_randomstate` by numpy's older generator with seed 0, as published. SlugError: there are no
    pictures, or more than the fraction `allow_missing` of them cannot be used.
    """
    val = files.existing(val, "ImageNet validation folder", "give --imagenet-val")
    rows = imagenet_classes(val)
    classes = list(dict.fromkeys(rows.values()))
    index = {c: i for i, c in enumerate(classes)}
    paths, besides = imagenet_pictures(val, rows)
    besides["folders that classes.csv does not name"] += sum(
        p.is_dir() and p.name not in rows and not is_system(p.name) for p in val.iterdir()
    )
    if +besides:
        progress.write(f"note: {val}: {len(paths)} pictures; left out: {told(+besides)}")
    if not paths:
        raise SlugError(f"{val} holds no pictures; see data/README.md for its layout")
    labels = [index[rows[key.partition("/")[0]]] for key in paths]
    gone = [key for key in _groups(val.parent) or () if key not in paths and key.partition("/")[0] in rows]
    if share < 1:
        rng: np.random.RandomState | np.random.Generator = np.random.default_rng(seed)
        rng = np.random.RandomState(0) if by_randomstate else rng
        keep = np.sort(rng.permutation(len(paths))[: round(share * len(paths))])
        keys = list(paths)
        paths, labels = {keys[i]: paths[keys[i]] for i in keep}, [labels[i] for i in keep]
        gone = gone[: round(share * len(gone))]
        if not paths:
            raise SlugError(
                f"{val}: the share {share:g} of its {len(keys)} pictures is none; give a larger --imagenet-share"
            )
    decode = partial(decode_files, transform=transform, workers=workers, desc="decode objects", cache=cache)
    return _picture_set(val.parent, paths, labels, classes, decode, gone=gone, allow_missing=allow_missing)
