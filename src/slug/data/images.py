"""Pictures in: decoded once, by workers, into one uint8 tensor."""

import hashlib
import io
import multiprocessing
import re
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from slug import files


def spread(items, count):
    """`count` of a list's items, evenly spread: what a sheet shows of many."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


BATCH = 64  # pictures decoded at once


class Decoded(torch.utils.data.Dataset):
    """Items (a path, or bytes) as transformed pictures; None where one cannot be decoded."""

    def __init__(self, items, transform):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        item = self.items[i]
        try:
            with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                return self.transform(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


def batches(items, transform, *, workers=0, desc="decode"):
    """Yield [transformed picture, or None where it cannot be decoded] of BATCH items (paths or bytes) after the other."""
    workers = workers if len(items) > 256 else 0
    # The platform's own way to start them: within one of joblib's processes the default is joblib's, which takes no others.
    context = multiprocessing.get_all_start_methods()[0] if workers else None
    how = {"num_workers": workers, "multiprocessing_context": context, "collate_fn": list}
    loader = torch.utils.data.DataLoader(Decoded(items, transform), batch_size=BATCH, **how)
    yield from tqdm(loader, desc=desc, unit="batch", leave=False, disable=len(items) < 500)


def by_batch(function, items, transform, *, workers=0, desc="look"):
    """What function says of all pictures, as if it saw them at once: {key: (M, ...)}, of the M that can be decoded.

    Only what it says is kept, so that memory holds a few batches of pictures, however many there are.

    Args:
        function: (N, 3, S, S) -> {key: (N, ...)}.
        items: paths or bytes of images.
    """
    parts = []
    for rows in batches(items, transform, workers=workers, desc=desc):
        kept = [image for image in rows if image is not None]
        if kept:
            parts.append(function(torch.stack(kept)))
    return {key: torch.cat([part[key] for part in parts]) for key in (parts[0] if parts else ())}


def decode(items, transform, *, workers=0, desc="decode"):
    """Paths or bytes of images -> (uint8 tensor (M, 3, S, S), indices (M,) of the items that could be decoded)."""
    rows = [image for batch in batches(items, transform, workers=workers, desc=desc) for image in batch]
    kept = [i for i, image in enumerate(rows) if image is not None]
    images = torch.stack([rows[i] for i in kept]) if kept else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return images, torch.tensor(kept, dtype=torch.long)


def decode_files(paths, transform, *, workers=0, desc="decode", cache=None):
    """`decode` of image files, done once: the result is kept under the folder `cache` and memory-mapped from there.

    What is kept is known by the files' paths, sizes and times and by the transform, so a changed file is decoded anew.
    """
    if cache is None:
        return decode(paths, transform, workers=workers, desc=desc)

    def mark(path):
        try:
            found = Path(path).stat()
        except OSError:
            return path, None, None
        return path, found.st_size, found.st_mtime_ns

    shape = re.sub(r" at 0x[0-9a-f]+", "", repr(transform))  # a function's address says nothing
    digest = hashlib.sha256(repr((shape, [mark(p) for p in paths])).encode()).hexdigest()
    path = Path(cache) / f"{digest[:24]}.safetensors"
    if path.is_file():
        try:
            kept = load_file(path)
            return kept["images"], kept["kept"]
        except (SafetensorError, OSError, KeyError):
            path.unlink()  # cut short: decode again
    images, kept = decode(paths, transform, workers=workers, desc=desc)
    with files.replacing(path) as temporary:
        save_file({"images": images, "kept": kept}, temporary)
    return images, kept


PICTURES = ("jpg", "jpeg", "png", "webp")
