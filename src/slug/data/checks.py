"""State of every data set: found, complete, usable, and what to do. Reads lists, counts and a few pictures."""

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from slug import files
from slug.data import canvas, evaluation_sets
from slug.data.images import Decoded, Item, evenly_spaced, is_system, listed
from slug.data.names import clean_name, plain_name
from slug.data.pairs import TarMembers, read_tar
from slug.errors import SlugError

SAMPLE = 16  # pictures of each set that are opened
STYLES, OBJECTS = 51, 20  # that UnlearnCanvas's classifiers tell apart
PREPARE_CELEBA = "bash scripts/prepare_celeba.sh"
TODO = {  # by data set: what to do if it is missing or unusable
    "laion": "download shards with img2dataset: data/README.md, Pairs",
    "retain": "it is the first shard: data/README.md, Pairs",
    "forget": "python src/clip/a0_create_tar.py --name",
    "celeba": f"pictures: CelebA's site; names: ask its authors (data/README.md); then {PREPARE_CELEBA}",
    "imagenet": "register at image-net.org, put both archives beside it, then bash scripts/valprep.sh (data/README.md)",
    "canvas": "download UnlearnCanvas from its own hosts: data/README.md, Styles",
    "membership": "a tar of pairs that the model was not trained on; published: CC3M's first shard (data/README.md, Pairs)",
    "classifiers": "download style.pth and object.pth with UnlearnCanvas: data/README.md, Styles",
}


class State(NamedTuple):
    """The state of one data set."""

    what: str
    path: str
    found: bool
    complete: bool
    usable: bool
    detail: str  # what is there
    todo: str  # what to do; empty where nothing is missing


Looked = tuple[bool, str, str]  # (complete, detail, what to do if it is not complete; "": as for one that is missing)


def _broken(items: Sequence[Item]) -> tuple[int, int]:
    """(broken, opened) of SAMPLE pictures at even distances. SlugError if all of them are broken, or there are none."""
    if not items:
        raise SlugError("no pictures")
    opened = Decoded(evenly_spaced(items, SAMPLE), Image.Image.copy)  # type: ignore[arg-type]
    broken = sum(opened[i] is None for i in range(len(opened)))
    if broken == len(opened):
        raise SlugError(f"none of the {broken} pictures opened can be decoded")
    return broken, len(opened)


def _state(what: str, path: Path, look: Callable[[Path], Looked], todo: str) -> State:
    """The state of one data set. `todo` is for one that is missing or unusable, in which case `look` raises SlugError."""
    if not path.exists():
        return State(what, str(path), False, False, False, "nothing", todo)
    try:
        complete, detail, more = look(path)
    except SlugError as err:
        return State(what, str(path), True, False, False, str(err), todo)
    return State(what, str(path), True, complete, True, detail, "" if complete else more or todo)


def shards(folder: Path) -> Looked:
    """LAION shards (data/README.md): each .parquet file with a whole tar beside it."""
    tables = sorted(folder.glob("*.parquet"))
    if not tables:
        raise SlugError("no shard (NNNNN.parquet with NNNNN.tar)")
    rows, whole = 0, 0
    for table in tables:
        try:
            rows += pq.read_table(table, columns=["status"])["status"].to_pylist().count("success")
        except (pa.ArrowException, OSError, KeyError) as err:
            raise SlugError(f"{table.name} is not the metadata img2dataset writes") from err
        with contextlib.suppress(OSError, tarfile.TarError), TarMembers(table.with_suffix(".tar")):
            whole += 1  # also without members
    if not whole:
        raise SlugError(f"{len(tables)} tables, no whole tar beside them")
    return whole == len(tables), f"{whole} whole of {len(tables)} shards, {rows} pictures", ""


def pairs(path: Path) -> Looked:
    """A tar of pairs: the retain set, a forget set, or what membership is inferred against."""
    samples = read_tar(path)
    broken, opened = _broken([image for _, image, _ in samples[:SAMPLE]])
    return True, f"{len(samples)} pairs, {broken} of {opened} opened are broken", ""


def celeba(root: Path) -> Looked:
    """CelebA's pictures, names and frequent identities."""
    identity = evaluation_sets.celeba_names(root)
    folder = root / "img_align_celeba"
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    images = [image for image in identity if image in there]
    if not images:
        raise SlugError(f"none of the list's {len(identity)} pictures; unpack img_align_celeba.zip")
    broken, opened = _broken([str(folder / image) for image in images])
    people = len(set(identity.values()))
    detail = f"{len(images)} of {len(identity)} pictures, {people} identities, {broken} broken of {opened}"
    frequent = root / "frequent_celebs.txt"
    if not frequent.is_file():
        raise SlugError(f"{detail}, no frequent_celebs.txt; make it: {PREPARE_CELEBA}")
    shown = {clean_name(line) for line in files.read_text(frequent).splitlines() if line.strip()}
    strange = shown - set(identity.values())
    if not shown - strange:
        raise SlugError(f"{frequent.name} names nobody of the list; make it anew: {PREPARE_CELEBA} --force")
    complete = len(images) == len(identity) and not strange and not broken
    return complete, f"{detail}, {len(shown)} shown", f"unpack img_align_celeba.zip whole; {PREPARE_CELEBA}"


def imagenet(val: Path) -> Looked:
    """ImageNet's validation pictures in class folders, or a folder that classes.csv describes."""
    rows = evaluation_sets.imagenet_classes(val)
    pictures, _ = evaluation_sets.imagenet_pictures(val, rows)
    paths, folders = list(map(str, pictures.values())), {key.partition("/")[0] for key in pictures}
    broken, opened = _broken(paths)
    complete = len(folders) == len(rows) and not broken
    detail = f"{len(paths)} pictures of {len(folders)} of {len(rows)} classes, {broken} broken of {opened}"
    return complete, detail, ""


def unlearn_canvas(folder: Path) -> Looked:
    """UnlearnCanvas's pictures by style and object."""
    cells = {p.relative_to(folder).parts: p for p in sorted(folder.glob("*/*")) if p.is_dir() and not is_system(p)}
    paths = [str(path) for cell in cells.values() for path in listed(cell)[0]]
    if not paths:
        raise SlugError("no {Style}/{Object}/{n}.jpg")
    broken, opened = _broken(paths)
    styles, objects = ({cell[i] for cell in cells} for i in (0, 1))
    grid = len(styles) * len(objects)
    complete = len(styles) >= STYLES and len(objects) >= OBJECTS and len(cells) == grid and not broken
    detail = f"{len(paths)} pictures, {len(styles)} of {STYLES} styles, {len(objects)} of {OBJECTS} objects"
    detail += f", {len(cells)} of {grid} cells, {broken} broken of {opened}"
    return complete, detail + _strange_styles(folder, styles), ""


def _strange_styles(folder: Path, styles: Iterable[str]) -> str:
    """The styles that the classifiers have no output for: the published data set has 61 folders, the classifier 51 outputs.
    Empty where the classifiers are of other data."""
    with contextlib.suppress(SlugError):  # a damaged description has a line of its own
        known = {plain_name(n) for n in canvas.classifier_settings(folder.parent / "classifiers")["labels"]["style"]}
        strange = sorted(n for n in styles if plain_name(n) not in known)
        if strange and len(strange) < len(list(styles)):
            return f", {len(strange)} styles that the classifier has no output for: {', '.join(strange)}"
    return ""


def classifiers(folder: Path) -> Looked:
    """UnlearnCanvas's two classifiers, and the file that describes them. Weights are not opened."""
    weights = {k: canvas.weights_of(folder, k) for k in canvas.KINDS}
    lacks = [k for k, p in weights.items() if not p or not p.stat().st_size]
    if lacks:
        raise SlugError(f"no {' and no '.join(lacks)} weights (.pth or .safetensors)")
    settings = canvas.classifier_settings(folder)
    counts = " and ".join(f"{len(settings['labels'][k])} {k}s" for k in canvas.KINDS)
    return True, f"{', '.join(p.name for p in weights.values() if p)}: {settings['arch']}, {counts}", ""


def states(root: Path, keys: Iterable[str], names: Sequence[str] = (), **paths: str) -> list[State]:
    """The states of the data sets `keys`: laion, retain, forget, celeba, imagenet, canvas, classifiers, membership.

    Args:
        root: the folder that data/README.md calls ROOT.
        names: forget names whose tars are wanted; without any, the tars that are there.
        paths: laion_dir, tar_dir, train_data, val_data, imagenet_val, canvas, classifiers, mia_data, where they are not in
            `root`.
    """

    def place(key: str, default: Path) -> Path:
        return files.resolve(paths.get(key) or default)

    laion, tars = place("laion_dir", root / "laion/laion400m"), place("tar_dir", root / "tar_files")
    train, styles = place("train_data", laion / "00000.tar"), place("canvas", root / "UnlearnCanvas")
    stems = [files.name_stem(n) for n in names] or sorted(p.stem for p in tars.glob("*.tar")) or ["NAME"]

    looks: dict[str, tuple[str, Path, Callable[[Path], Looked]]] = {
        "laion": ("LAION shards", laion, shards),
        "retain": ("retain set", train, pairs),
        "membership": ("membership shard", place("mia_data", root / "cc3m/00000.tar"), pairs),
        "celeba": ("CelebA", place("val_data", root / "celeba"), celeba),
        "imagenet": ("ImageNet val", place("imagenet_val", root / "ImageNet/val"), imagenet),
        "canvas": ("UnlearnCanvas", styles / "data", unlearn_canvas),
        "classifiers": ("UnlearnCanvas classifiers", place("classifiers", styles / "classifiers"), classifiers),
    }
    found = []
    for key in keys:
        if key == "forget":
            found += [_state(f"forget set {s}", tars / f"{s}.tar", pairs, f"{TODO[key]} {s}") for s in stems]
        else:
            found.append(_state(*looks[key], TODO[key]))
    return found


def table(found: Sequence[State]) -> str:
    """States as text for the terminal."""
    width = max(len(s.what) for s in found)
    lines = [f"{'data set':{width}}  found  complete  usable  what is there"]
    for s in found:
        there = "  ".join(f"{'yes' if yes else 'no':{n}}" for yes, n in ((s.found, 5), (s.complete, 8), (s.usable, 6)))
        lines.append(f"{s.what:{width}}  {there}  {s.detail}")
        lines += [f"{'':{width}}  to do: {s.todo} -> {s.path}"] if s.todo else []
    return "\n".join(lines)
