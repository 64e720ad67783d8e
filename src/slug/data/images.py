"""Image files: which files are pictures, and their decoding, by worker processes, into one uint8 tensor."""

import hashlib
import io
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before a spawned worker unpickles a transform, which imports torchvision)

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slug import files, progress

BATCH = 64  # images decoded at once
# Endings of image files: the raster formats that Pillow reads by itself.
PICTURES = (
    "jpg jpeg jpe jfif png apng webp avif avifs bmp dib gif tif tiff "
    "jp2 j2k jpx jpf jpc ppm pgm pbm pnm tga ico icns pcx qoi sgi"
).split()
SYSTEM = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".ipynb_checkpoints", "__macosx", "@eadir"}
MOST_ASPECT = 200  # sides; scaled to a model's size, a picture of 1 x 65,000 pixels would need more memory than there is

Item = str | Path | bytes  # an image: its file, or the bytes of one
Transform = Callable[[Image.Image], torch.Tensor]


def is_system(path: str | Path) -> bool:
    """Whether a file, or a folder that it lies in, belongs to an operating system or a tool, as .DS_Store or ._1.jpg do."""
    return any(part.startswith("._") or part.casefold() in SYSTEM for part in str(path).split("/"))


def ending(path: str | Path) -> str:
    """The ending of a file's name in lower case, without its dot."""
    stem, _, end = str(path).rpartition("/")[2].rpartition(".")
    return end.lower() if stem else ""


def listed(folder: Path, *, deep: bool = True) -> tuple[list[Path], Counter[str]]:
    """The pictures of a folder by their endings, in order, and what is left out: {what: files}.

    Files of systems count as nothing. Without `deep`, pictures in subfolders are left out.
    """
    found, left_out = [], Counter[str]()
    for top, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not is_system(f)]
        left_out["linked folders"] += sum(Path(top, f).is_symlink() for f in folders)  # which os.walk does not enter
        for path in (Path(top, n) for n in names if not is_system(n)):
            if ending(path) not in PICTURES:
                # A caption or a hidden file is no picture that somebody misses.
                if ending(path) != "txt" and not path.name.startswith("."):
                    left_out[f"ending .{ending(path)}" if ending(path) else "no ending"] += 1
            elif deep or Path(top) == folder:
                found.append(path)
            else:
                left_out["in a subfolder"] += 1
    return sorted(found), +left_out


def told(counts: Mapping[str, int]) -> str:
    """Counts in words, the largest first: `3 ending .heic, 1 no ending`."""
    return ", ".join(f"{n} {what}" for what, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def read(item: Item) -> Image.Image | None:
    """A picture, read whole; None if it cannot be used: damaged, no picture, or longer than MOST_ASPECT times its width.

    Grey values of 16 bits become 8 bits, which Pillow itself would cut off at 255.
    """
    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            if max(image.size) > MOST_ASPECT * min(image.size):
                return None
            image.load()
            if image.mode[0] == "I":
                values = np.asarray(image).astype(np.int64)
                deep = image.mode != "I" or values.max() > 255
                return Image.fromarray((values >> 8 * deep).clip(0, 255).astype(np.uint8))
            return image
    except Exception:  # the parsers of formats and of EXIF raise errors of every kind on damaged files
        return None


def evenly_spaced(items: Sequence, count: int) -> list:
    """`count` items of a sequence at even distances, or all of them where there are fewer."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


class Decoded(torch.utils.data.Dataset):
    """Images after a transform; None for an image that cannot be decoded."""

    def __init__(self, items: Sequence[Item], transform: Transform) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> torch.Tensor | None:
        image = read(self.items[i])
        try:
            return None if image is None else self.transform(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, MemoryError):
            return None


def batches(
    items: Sequence[Item], transform: Transform, *, workers: int = 0, desc: str = "decode"
) -> Iterator[list[torch.Tensor | None]]:
    """Decode images BATCH by BATCH; an image that cannot be decoded is None."""
    workers = workers if len(items) > 256 else 0
    # The platform's default start method. Inside a joblib process the default is joblib's own, which DataLoader refuses.
    context = multiprocessing.get_all_start_methods()[0] if workers else None
    how: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": context, "collate_fn": list}
    loader = torch.utils.data.DataLoader(Decoded(items, transform), batch_size=BATCH, **how)
    yield from progress.bar(loader, desc=desc, unit="batch", leave=False, shown=len(items) >= 500)


def by_batch(
    function: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    items: Sequence[Item],
    transform: Transform,
    *,
    workers: int = 0,
    desc: str = "look",
) -> dict[str, torch.Tensor]:
    """Apply a function to all images, batch by batch, so that memory holds only a few batches of pixels.

    The function maps uint8 images (N, 3, S, S) to {key: (N, ...)}. Returns {key: (M, ...)} for the M images that can be
    decoded.
    """
    parts = []
    for rows in batches(items, transform, workers=workers, desc=desc):
        kept = [image for image in rows if image is not None]
        if kept:
            parts.append(function(torch.stack(kept)))
    return {key: torch.cat([part[key] for part in parts]) for key in (parts[0] if parts else ())}


def decode(
    items: Sequence[Item], transform: Transform, *, workers: int = 0, desc: str = "decode"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode images into a uint8 tensor (M, 3, S, S); also returns the indices (M,) of the items that could be decoded."""
    rows = [image for batch in batches(items, transform, workers=workers, desc=desc) for image in batch]
    kept = {i: image for i, image in enumerate(rows) if image is not None}
    images = torch.stack(list(kept.values())) if kept else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return images, torch.tensor(list(kept), dtype=torch.long)


def decode_files(
    paths: Sequence[str], transform: Transform, *, workers: int = 0, desc: str = "decode", cache: Path | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`decode` image files once, and keep the result in the folder `cache`, from which it is memory-mapped.

    A file is decoded anew if its path, size or modification time, or the transform, changed.
    """
    if cache is None:
        return decode(paths, transform, workers=workers, desc=desc)
    shape = re.sub(r" at 0x[0-9a-f]+", "", repr(transform))  # the address of a function differs from run to run
    digest = hashlib.sha256(repr((shape, [_mark(p) for p in paths])).encode()).hexdigest()
    path = Path(cache) / f"{digest[:24]}.safetensors"
    if path.is_file():
        try:
            stored = load_file(path)
            return stored["images"], stored["kept"]
        except (SafetensorError, OSError, KeyError):
            path.unlink()  # truncated: decode again
    images, kept = decode(paths, transform, workers=workers, desc=desc)
    with files.replacing(path) as temporary:
        save_file({"images": images, "kept": kept}, temporary)
    return images, kept


def _mark(path: str) -> tuple[str, int | None, int | None]:
    """(path, size, modification time) of a file, by which a change is noticed."""
    try:
        found = Path(path).stat()
    except OSError:
        return path, None, None
    return path, found.st_size, found.st_mtime_ns
