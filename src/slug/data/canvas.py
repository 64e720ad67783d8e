"""The files of UnlearnCanvas: its two classifiers and what describes them (data/README.md, Styles)."""

from pathlib import Path
from typing import Any

from slug import files
from slug.errors import SlugError

KINDS = ("style", "object")
# What UnlearnCanvas calls its classifiers: the second one, of almost the same name, tells objects ("classes").
NAMED = {"style": "style50.pth", "object": "style50_cls.pth"}
PUBLISHED = files.ROOT / "data/uncanvas/classifiers.json"  # describes UnlearnCanvas's own classifiers


def weights_of(folder: Path, kind: str) -> Path | None:
    """The weight file of a classifier in a folder, by our name or by the published one; None where it is missing."""
    names = (f"{kind}.safetensors", f"{kind}.pth", NAMED[kind])
    return next((p for name in names if (p := folder / name).is_file()), None)


def classifier_settings(folder: Path, side: int = 0) -> dict[str, Any]:
    """The description of both classifiers in a folder's classifiers.json; UnlearnCanvas's own (PUBLISHED) without that file.

    Args:
        side: what `size` is where the file does not say it, with a mean and deviation of 0.5; 0: the file must say them.
    Returns `arch`, `labels` ({kind: names in the order of the outputs}), `mean`, `std`, `size` and, where needed, timm's
    `options`. SlugError if the file is damaged or lacks something.
    """
    import slug.torchvision_cpu  # noqa: F401  (before timm)

    import timm

    def named(labels: Any) -> bool:
        return all(isinstance(labels[k], list) and labels[k] and all(isinstance(n, str) for n in labels[k]) for k in KINDS)

    numbers = ("three numbers", lambda v: len([float(x) for x in v]) == 3)
    wanted: dict[str, tuple[str, Any]] = {
        "arch": ("a network of timm", timm.is_model),
        "labels": ("lists of the styles and the objects", named),
        "mean": numbers,
        "std": numbers,
        "size": ("a number of pixels", lambda v: isinstance(v, int) and v > 0),
    }
    path = folder / "classifiers.json"
    path = path if path.is_file() else PUBLISHED
    settings = files.read_json(path)
    if side and isinstance(settings, dict):
        settings = {"size": side, "mean": [0.5] * 3, "std": [0.5] * 3} | settings
    for key, (what, good) in wanted.items():
        try:
            fine = good(settings[key])
        except (KeyError, TypeError, ValueError, AttributeError):
            fine = False
        if not fine:
            raise SlugError(f"{path}: {key!r} is missing or not {what}; data/README.md, Styles, says what the file holds")
    return settings
