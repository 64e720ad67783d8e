"""What is there of every data set: found, complete, usable, what to do. Reads lists, counts and a few pictures."""

import contextlib
import os
import tarfile
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from slug import files
from slug.data import evaluation_sets
from slug.data.images import Decoded
from slug.data.names import clean_name
from slug.data.pairs import TarMembers, read_tar
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts

SAMPLE = 16  # pictures opened of a set
STYLES, OBJECTS = 51, 20  # of UnlearnCanvas: what its classifiers tell apart (PAPER.md, section 3)


class State(NamedTuple):
    """One data set."""

    what: str
    path: str
    found: bool
    complete: bool
    usable: bool
    detail: str  # what is there
    todo: str  # what to do; empty where nothing is missing


class _Unusable(Exception):
    """Something is there, but cannot be used as it is: (what is there)."""


def _bad(paths):
    """How many of SAMPLE pictures, spread over `paths` in order, cannot be decoded: (bad, looked at)."""
    chosen = [paths[i * len(paths) // SAMPLE] for i in range(SAMPLE)] if len(paths) > SAMPLE else list(paths)
    opened = Decoded([str(p) for p in chosen], Image.Image.copy)
    return sum(opened[i] is None for i in range(len(chosen))), len(chosen)


def _state(what, path, todo, look):
    """The State of one data set.

    Args:
        todo: what to do where it is not there or not usable.
        look: function () -> (complete, detail, what to do where it is not complete); raises SlugError or _Unusable.
    """
    if not path.exists():
        return State(what, str(path), False, False, False, "nothing", todo)
    try:
        complete, detail, more = look()
    except (SlugError, _Unusable) as err:
        return State(what, str(path), True, False, False, str(err), todo)
    return State(what, str(path), True, complete, True, detail, "" if complete else more)


def shards(folder):
    """LAION shards (data/README.md): every .parquet with a whole tar beside it."""
    todo = "download shards with img2dataset: data/README.md, Pairs"

    def look():
        tables = sorted(folder.glob("*.parquet"))
        if not tables:
            raise _Unusable("no shard (NNNNN.parquet with NNNNN.tar)")
        rows, whole = 0, 0
        for table in tables:
            try:
                rows += pq.read_table(table, columns=["status"])["status"].to_pylist().count("success")
            except (pa.ArrowException, OSError, KeyError) as err:
                raise _Unusable(f"{table.name} is not the metadata img2dataset writes") from err
            with contextlib.suppress(OSError, tarfile.TarError), TarMembers(table.with_suffix(".tar")):
                whole += 1
        if not whole:
            raise _Unusable(f"{len(tables)} tables, no whole tar beside them")
        return whole == len(tables), f"{whole} whole of {len(tables)} shards, {rows} pictures", todo

    return _state("LAION shards", folder, todo, look)


def pairs(path, what, todo):
    """A tar of pairs: the retain set, or a forget set."""

    def look():
        samples = read_tar(path)
        opened = Decoded([s[1] for s in samples[:SAMPLE]], Image.Image.copy)
        bad = sum(opened[i] is None for i in range(len(opened)))
        if bad == len(opened):
            raise _Unusable(f"none of {bad} pictures looked at can be decoded")
        return True, f"{len(samples)} pairs, {bad} of {len(opened)} looked at broken", ""

    return _state(what, path, todo, look)


def celeba(root):
    """CelebA's pictures, names and frequent identities."""
    prepare = "bash scripts/prepare_celeba.sh"

    def look():
        identity = evaluation_sets.celeba_names(root)
        folder = root / "img_align_celeba"
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        images = [image for image in identity if image in there]
        if not images:
            raise _Unusable(f"none of {len(identity)} pictures of the list; unpack img_align_celeba.zip")
        bad, looked = _bad([folder / image for image in images])
        if bad == looked:
            raise _Unusable(f"none of {bad} pictures looked at can be decoded")
        detail = (
            f"{len(images)} of {len(identity)} pictures, {len(set(identity.values()))} identities, {bad} broken of {looked}"
        )
        frequent = root / "frequent_celebs.txt"
        if not frequent.is_file():
            raise _Unusable(f"{detail}, no frequent_celebs.txt; make it: {prepare}")
        shown = {clean_name(line) for line in files.read_text(frequent).splitlines() if line.strip()}
        strange = shown - set(identity.values())
        if not shown - strange:
            raise _Unusable(f"{frequent.name} names nobody of the list; make it anew: {prepare} --force")
        complete = len(images) == len(identity) and not strange and not bad
        return complete, f"{detail}, {len(shown)} shown", "unpack img_align_celeba.zip whole; " + prepare

    todo = "pictures: CelebA's site; names: ask its authors (data/README.md); then " + prepare
    return _state("CelebA", root, todo, look)


def imagenet(val):
    """ImageNet's validation pictures in class folders, or a folder that classes.csv describes."""
    todo = "register at image-net.org, put both archives beside it, then bash scripts/valprep.sh (data/README.md)"

    def look():
        rows = evaluation_sets.imagenet_classes(val)
        full = [f for f in rows if (val / f).is_dir()]
        paths = [path for f in full for path in sorted((val / f).iterdir())]
        if not paths:
            raise _Unusable("no pictures")
        bad, looked = _bad(paths)
        if bad == looked:
            raise _Unusable(f"none of {bad} pictures looked at can be decoded")
        complete = len(full) == len(rows) and not bad and all(any((val / f).iterdir()) for f in full)
        return complete, f"{len(paths)} pictures of {len(full)} of {len(rows)} classes, {bad} broken of {looked}", todo

    return _state("ImageNet val", val, todo, look)


def canvas(folder):
    """UnlearnCanvas's pictures by style and object."""
    todo = "download UnlearnCanvas from its own hosts: data/README.md, Styles"

    def look():
        cells = {p.relative_to(folder).parts: p for p in sorted(folder.glob("*/*")) if p.is_dir()}
        paths = [path for cell in cells.values() for path in sorted(cell.iterdir())]
        if not paths:
            raise _Unusable("no {Style}/{Object}/{n}.jpg")
        bad, looked = _bad(paths)
        if bad == looked:
            raise _Unusable(f"none of {bad} pictures looked at can be decoded")
        styles, objects = ({cell[i] for cell in cells} for i in (0, 1))
        complete = len(styles) >= STYLES and len(objects) >= OBJECTS and len(cells) == len(styles) * len(objects) and not bad
        detail = f"{len(paths)} pictures, {len(styles)} of {STYLES} styles, {len(objects)} of {OBJECTS} objects"
        return complete, f"{detail}, {len(cells)} of {len(styles) * len(objects)} cells, {bad} broken of {looked}", todo

    return _state("UnlearnCanvas", folder, todo, look)


def classifiers(folder):
    """UnlearnCanvas's two classifiers, and what says how to read them. Weights are not opened."""
    todo = "download style.pth and object.pth with UnlearnCanvas: data/README.md, Styles"

    def look():
        weights = {k: canvas_classifiers.weights_of(folder, k) for k in canvas_prompts.KINDS}
        lacks = [k for k, p in weights.items() if not p or not p.stat().st_size]
        if lacks:
            raise _Unusable(f"no {' and no '.join(lacks)} weights (.pth or .safetensors)")
        settings = canvas_classifiers.classifier_settings(folder)
        counts = " and ".join(f"{len(settings['labels'][k])} {k}s" for k in canvas_prompts.KINDS)
        return True, f"{', '.join(p.name for p in weights.values())}: {settings['arch']}, {counts}", todo

    return _state("UnlearnCanvas classifiers", folder, todo, look)


def states(root, keys, names=(), **paths):
    """[State] of data sets.

    Args:
        root: the folder data/README.md calls ROOT.
        keys: which: laion, retain, forget, celeba, imagenet, canvas, classifiers.
        names: forget names whose tars are wanted; without any, the tars that are there.
        paths: laion_dir, tar_dir, train_data, val_data, imagenet_val, canvas, classifiers: where they are not below `root`.
    """

    def place(key, default):
        return files.resolve(paths.get(key) or default)

    laion, tars = place("laion_dir", root / "laion/laion400m"), place("tar_dir", root / "tar_files")
    train, canvas_dir = place("train_data", laion / "00000.tar"), place("canvas", root / "UnlearnCanvas")
    stems = [files.safe_name(n.replace(" ", "_")) for n in names] or sorted(p.stem for p in tars.glob("*.tar")) or ["NAME"]

    def forget(stem):
        todo = f"python src/clip/a0_create_tar.py --name {stem}"
        return pairs(tars / f"{stem}.tar", f"forget set {stem}", todo)

    look = {
        "laion": lambda: [shards(laion)],
        "retain": lambda: [pairs(train, "retain set", "it is the first shard: data/README.md, Pairs")],
        "forget": lambda: [forget(stem) for stem in stems],
        "celeba": lambda: [celeba(place("val_data", root / "celeba"))],
        "imagenet": lambda: [imagenet(place("imagenet_val", root / "ImageNet/val"))],
        "canvas": lambda: [canvas(canvas_dir / "data")],
        "classifiers": lambda: [classifiers(place("classifiers", canvas_dir / "classifiers"))],
    }
    return [state for key in keys for state in look[key]()]


def table(found):
    """States as text for the terminal."""
    width = max(len(s.what) for s in found)
    lines = [f"{'data set':{width}}  found  complete  usable  what is there"]
    for s in found:
        there = "  ".join(f"{'yes' if yes else 'no':{n}}" for yes, n in ((s.found, 5), (s.complete, 8), (s.usable, 6)))
        lines.append(f"{s.what:{width}}  {there}  {s.detail}")
        lines += [f"{'':{width}}  to do: {s.todo} -> {s.path}"] if s.todo else []
    return "\n".join(lines)
