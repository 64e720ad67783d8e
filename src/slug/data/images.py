"""Decoding of images, by worker processes, into one uint8 tensor."""

import hashlib
import io
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slug import files, progress

BATCH = 64  # images decoded at once
PICTURES = ("jpg", "jpeg", "png", "webp")  # endings of image files

Item = str | Path | bytes  # an image: its file, or the bytes of one
Transform = Callable[[Image.Image], torch.Tensor]


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
        item = self.items[i]
        try:
            with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                return self.transform(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
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
