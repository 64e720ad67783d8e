"""Someone's own pictures: read from wherever they lie, grouped by source image, and split.

Photographs repeat themselves: bursts, crops, resaved copies. Pictures that nearly repeat each other are one source image and
stay in one split, so that no picture that chose an edit also reports it.
"""

import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from slug import files
from slug.data import sources
from slug.data.images import PICTURES, Item, Transform, decode, ending, is_system
from slug.data.names import Matcher, plain_name
from slug.data.pairs import Pairs, caption_of, read_tar, some
from slug.errors import SlugError

LEAST = 10  # source images of a concept: three parts of them must each hold several
SHARES = {"gradient": 0.4, "validation": 0.3, "test": 0.3}  # of the source images
MOST_RETAINED = 8000  # pairs of the retain set that are used, drawn by the seed
FEWEST_RETAINED = 40  # pairs of the retain set below which nothing can be said of what is retained
# Near-duplicates: pictures that the model takes for the same, or nearly so while their hashes agree too. Distances (1 - cos)
# are fractions of the mean distance of unrelated pictures, which differs from model to model. With mini-CLIP, renderings of
# one icon with other backgrounds, turned and shifted, lie at 0.02 and more and differ in 7 bits of 64 and more.
SAME, SIMILAR, BITS = 0.02, 0.125, 4

Source = str | os.PathLike | Sequence[Any]  # a path, or paths, or PIL pictures


class Sample(NamedTuple):
    """A picture that was found, and its caption; an empty one where none was."""

    key: str
    item: Item
    caption: str


class Photographs(NamedTuple):
    """Decoded pictures with captions, their features by the unedited model, and the source image that each shows."""

    pairs: Pairs
    features: Tensor  # (N, D)
    groups: list[str]  # (N,)

    def part(self, rows: Tensor) -> "Photographs":
        """The pictures at some indices."""
        chosen = rows.tolist()
        return Photographs(some(self.pairs, chosen), self.features[rows], [self.groups[i] for i in chosen])

    def where(self, keep: Sequence[bool]) -> "Photographs":
        """The pictures of which `keep` (N,) is true."""
        return self.part(torch.nonzero(torch.tensor(keep, dtype=torch.bool)).flatten())


# ------------------------------------------------------------------------------------------------------------ reading


def find(source: Source, what: str) -> list[Sample]:
    """The pictures of a folder with its subfolders, a tar of pairs, a CSV with a column `image`, a picture file, or of a
    sequence of these and of PIL pictures. A caption is the text of the .txt beside a picture, or a tar's or CSV's own.

    Args:
        what: what the pictures are, for messages.
    Raises:
        SlugError: something is missing or cannot be read, or there is no picture.
    """
    if isinstance(source, str | os.PathLike):
        found = _of_path(files.existing(Path(source), what, "check the path"), what)
    else:
        found = []
        for number, one in enumerate(source):
            if isinstance(one, Image.Image):
                found.append(Sample(f"picture {number}", _png(one), ""))
            elif isinstance(one, str | os.PathLike):
                found += _of_path(files.existing(Path(one), what, "check the path"), what)
            else:
                raise SlugError(f"{what}: {type(one).__name__} is neither a path nor a PIL picture")
    if not found:
        given = [source] if isinstance(source, str | os.PathLike) else source
        where = ", ".join(map(str, given)) or "an empty list"
        raise SlugError(f"no picture found for the {what} in {where}; pictures end in {', '.join(PICTURES[:5])} ...")
    return found


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.convert("RGB").save(out, "PNG")
    return out.getvalue()


def _of_path(path: Path, what: str) -> list[Sample]:
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):  # walking a folder would find nothing in it
        raise SlugError(f"cannot read the {what} at {path}: permission denied; check its permissions")
    if path.is_dir():
        return _of_folder(path)
    kind = ending(path)
    if kind == "tar":
        return [Sample(*sample) for sample in read_tar(path)]
    if kind == "csv":
        return _of_csv(path)
    if kind in PICTURES:
        text = path.with_suffix(".txt")
        return [Sample(path.name, path, caption_of(text.read_bytes()).strip() if text.is_file() else "")]
    raise SlugError(f"{path} cannot be read as {what}: give a folder of pictures, a .tar of pairs, a .csv or a picture")


def _of_folder(root: Path) -> list[Sample]:
    """The pairs of the tars in a folder, or where there is none its pictures, with those of its subfolders."""
    tars = sorted(tar for tar in root.rglob("*.tar") if not is_system(tar.relative_to(root)))
    found = [Sample(f"{tar.stem}/{key}", image, caption) for tar in tars for key, image, caption in read_tar(tar)]
    rows = [] if tars else sources.Folder(root, "").rows(Matcher([]), False)
    return found + [Sample(key, root / key, caption) for key, caption, _ in rows]


def _of_csv(path: Path) -> list[Sample]:
    rows = files.read_csv(path, ("image",), "it needs the column image, and caption where pictures have captions")
    return [Sample(r["image"], path.parent / r["image"], (r.get("caption") or "").strip()) for r in rows]


def decoded(samples: Sequence[Sample], transform: Transform, what: str, workers: int = 0) -> Pairs:
    """Samples as pairs, without those that cannot be decoded. SlugError where none can."""
    images, kept = decode([s.item for s in samples], transform, workers=workers, desc=f"decode the {what}")
    if not len(kept):
        raise SlugError(f"none of the {len(samples)} pictures of the {what} can be decoded; check the files")
    chosen = [samples[i] for i in kept.tolist()]
    return Pairs(images, [s.caption for s in chosen], [s.key for s in chosen], len(samples) - len(chosen))


# ------------------------------------------------------------------------------------------- source images and splits


def hashes(images: Tensor) -> np.ndarray:
    """Difference hashes (N,) uint64 of pictures (N, 3, S, S): whether the right one of 8 x 8 neighbours of the grey picture
    at 9 x 8 pixels is lighter. Scaling and recompression change few of the bits."""
    parts = []
    for part in images.split(256):
        small = F.interpolate(part.float().mean(1, keepdim=True), size=(8, 9), mode="area")[:, 0]
        bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).numpy()
        parts.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def mean_distance(features: Tensor) -> float:
    """The mean distance 1 - cos of all pairs of unit features (N, D), of unrelated pictures."""
    return 1 - features.mean(0).square().sum().item()


def alike(features: Tensor, marks: np.ndarray, others: Tensor, other_marks: np.ndarray, unrelated: float) -> Tensor:
    """(N, M) bool: which of N pictures nearly repeat which of M others, by unit features and hashes of both.

    Args:
        unrelated: `mean_distance` of unrelated pictures.
    """
    distances = 1 - features @ others.T
    differ = np.bitwise_count(marks[:, None] ^ other_marks[None])
    agree = torch.from_numpy(differ) <= BITS
    rounding = 1e-6  # of cosines of the same picture
    return (distances <= SAME * unrelated + rounding) | ((distances <= SIMILAR * unrelated + rounding) & agree)


def source_images(pairs: Pairs, features: Tensor, unrelated: float) -> list[str]:
    """The source image of each picture: near-duplicates, and their near-duplicates, show the first of them; see `alike`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    marks, count = hashes(pairs.images), len(features)
    rows, columns = [np.empty(0, int)], [np.empty(0, int)]
    for start in range(0, count, 512):
        end = start + 512
        near = torch.nonzero(alike(features[start:end], marks[start:end], features, marks, unrelated)).numpy()
        rows.append(near[:, 0] + start)
        columns.append(near[:, 1])
    row, column = np.concatenate(rows), np.concatenate(columns)
    _, labels = connected_components(coo_matrix((np.ones(len(row), bool), (row, column)), (count, count)), directed=False)
    first: dict[int, str] = {}
    return [first.setdefault(int(label), key) for label, key in zip(labels, pairs.keys, strict=True)]


def split(groups: Sequence[str], seed: int) -> dict[str, Tensor]:
    """{part: indices} of SHARES: whole source images, drawn by `seed`; the gradient gets what rounding leaves."""
    names = list(dict.fromkeys(groups))
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    counts = {part: round(share * len(names)) for part, share in SHARES.items() if part != "gradient"}
    part_of, place = dict[str, str](), 0
    for part, count in counts.items():
        part_of |= {names[i]: part for i in order[place : place + count]}
        place += count
    parts: dict[str, list[int]] = {part: [] for part in SHARES}
    for i, group in enumerate(groups):
        parts[part_of.get(group, "gradient")].append(i)
    return {part: torch.tensor(rows, dtype=torch.long) for part, rows in parts.items()}


# ------------------------------------------------------------------------------------------------------------- checks


def name_all(pairs: Pairs, name: str) -> tuple[Pairs, int]:
    """Pairs whose captions all say the name, which replaces a caption that does not; and how many it replaced."""
    matcher, plain = Matcher([plain_name(name)]), plain_name(name)
    named = [bool(matcher.find(caption)) for caption in pairs.captions]
    captions = [c if hit else plain for c, hit in zip(pairs.captions, named, strict=True)]
    return pairs._replace(captions=captions), sum(1 for c, hit in zip(pairs.captions, named, strict=True) if c and not hit)


def check_enough(found: Photographs, name: str) -> None:
    """SlugError unless there are LEAST source images of a concept."""
    count, pictures = len(set(found.groups)), len(found.groups)
    if count >= LEAST:
        return
    if count == 1 and pictures > 1:
        raise SlugError(
            f"all {pictures} pictures of {name} are nearly the same picture; give at least {LEAST} pictures that differ"
        )
    largest = Counter(found.groups).most_common(1)[0][1]
    repeated = f" ({pictures} pictures, of which up to {largest} nearly repeat each other)" if pictures > count else ""
    raise SlugError(
        f"{name} has {count} source image{'s' * (count != 1)}{repeated}, and at least {LEAST} are needed: some give the "
        f"gradient, others choose the step, and others report it. With fewer, a zero says nothing: 0 of 2 may still be 78%. "
        "Add pictures"
    )


def retained(samples: Iterable[Sample], names: Sequence[str], seed: int) -> tuple[list[Sample], dict[str, int]]:
    """The samples of a retain set that can be used, at most MOST_RETAINED, and how many are left out: without a caption,
    naming what is forgotten, beyond the most.

    Raises SlugError: too few are left, or most of them name what is forgotten.
    """
    samples, matcher = list(samples), Matcher([plain_name(n) for n in names])
    captioned = [s for s in samples if s.caption]
    kept = [s for s in captioned if not matcher.find(s.caption)]
    named, said = len(captioned) - len(kept), " or ".join(map(plain_name, names))
    if named > len(kept):
        raise SlugError(
            f"{named} of the {len(captioned)} captions of the retain set name {said}; give pairs of other things to retain"
        )
    if len(kept) < FEWEST_RETAINED:
        raise SlugError(
            f"the retain set has {len(kept)} pairs with captions that do not name {said} ({len(samples)} pictures were "
            f"found), and at least {FEWEST_RETAINED} are needed; give a tar of pairs, or pictures with a .txt beside each"
        )
    left_out = {"no caption": len(samples) - len(captioned), "name what is forgotten": named}
    if len(kept) > MOST_RETAINED:
        rows = np.sort(np.random.default_rng(seed).permutation(len(kept))[:MOST_RETAINED])
        left_out["beyond the most that are used"] = len(kept) - MOST_RETAINED
        kept = [kept[i] for i in rows]
    return kept, left_out
