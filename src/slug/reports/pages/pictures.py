"""Pictures within a page, with a model's first answers before and after an edit."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

SIDE = 224  # pixels of a stored picture, at most
LOSSLESS = 128  # pixels up to which a picture is stored as PNG; larger ones as JPEG


def address(image: Any) -> str:
    """A picture, a (3, S, S) uint8 tensor, as an address that holds it."""
    made, kept = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()), io.BytesIO()
    made.thumbnail((SIDE, SIDE))
    if max(made.size) <= LOSSLESS:
        made.save(kept, "png", optimize=True)
    else:
        made.save(kept, "jpeg", quality=90)
    kind = "png" if max(made.size) <= LOSSLESS else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(kept.getvalue()).decode()}"


def rows(
    images: Any, names: Sequence[str], own: Sequence[bool], before: Sequence[Any], after: Sequence[Any]
) -> list[dict[str, Any]]:
    """Pictures (K, 3, S, S) of `names` with the answers [(name, probability)] before and after, as JSON can hold them."""
    return [
        {"image": address(image), "name": name, "own": mine, "before": was, "after": now}
        for image, name, mine, was, now in zip(images, names, own, before, after, strict=True)
    ]
