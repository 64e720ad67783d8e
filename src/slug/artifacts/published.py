"""Files of the published code: its gradients and its table of UnlearnCanvas, read into this project's conventions.

A saved forget gradient is negated there, so that its negative ratios mean ascent; here a positive step ADDS the gradient of
1 - cos. Signs are changed on reading, and nothing is ever written in the other convention. Its logs are read by
`records.parse_log`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from slug import files
from slug.errors import SlugError

COLUMNS = ("Unlearn Name", "Step Size", "UA", "IRA", "CRA")
FIGURES = COLUMNS[2:]
REMEDY = "give the folder that the published code wrote, with forget_grads*.pt and train_grads*.pt"


def gradient_file(folder: Path, side: str) -> Path:
    """The whole gradient of a side, "forget" or "train"; else the one of the most samples. SlugError if there is none."""
    for name in (f"{side}_grads.pt", f"{side}_grads_final.pt"):
        if (folder / name).is_file():
            return folder / name
    partial = {int(p.stem.rpartition("_")[2]): p for p in sample_files(folder, side)}
    if not partial:
        raise SlugError(f"{folder} holds no {side}_grads.pt, {side}_grads_final.pt or {side}_grads_samples_N.pt; {REMEDY}")
    return partial[max(partial)]


def sample_files(folder: Path, side: str) -> list[Path]:
    """The gradients of the first N samples of a side, ascending in N."""
    pattern = re.compile(rf"{side}_grads_samples_(\d+)\.pt")
    found = {int(m[1]): p for p in folder.iterdir() if (m := pattern.fullmatch(p.name))}
    return [found[n] for n in sorted(found)]


def gradient(path: Path, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradient in a published file, as it is there, in float32 and in the order of the parameters `like`.

    What distributed training adds to names is removed. SlugError if a parameter is missing or has another shape, or a value
    is NaN or infinite.
    """
    found = {n.removeprefix("module."): g for n, g in files.read_tensors(path, REMEDY).items()}
    for name, parameter in like.items():
        if name not in found:
            raise SlugError(f"{path} has no gradient of {name}: it is of another model; {REMEDY}")
        if found[name].shape != parameter.shape:
            shapes = f"{tuple(found[name].shape)} instead of {tuple(parameter.shape)}"
            raise SlugError(
                f"{path}: the gradient of {name} has the shape {shapes}; it was made for another model; give that --model"
            )
        if not torch.isfinite(found[name]).all():
            raise SlugError(f"{path}: the gradient of {name} holds NaN or infinity; get the file again")
    return {n: found[n].float().cpu() for n in like}


def ascending(found: Mapping[str, torch.Tensor], here: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], bool]:
    """(the forget gradient with the sign of 1 - cos, whether it was negated), by the gradient of a few pairs, `here`.

    The published code negates it in most of its paths, but not in all. SlugError where the two have nothing in common.
    """
    product = sum(float((found[n].double() * g.double()).sum()) for n, g in here.items())
    norms = [sum(float(g.double().square().sum()) for g in part.values()) ** 0.5 for part in (found, here)]
    cosine = product / (norms[0] * norms[1]) if min(norms) > 0 else 0.0
    if abs(cosine) < 0.01:
        raise SlugError(
            f"the cosine of the published forget gradient with that of a few pairs of the forget set is only {cosine:+.3f}; "
            "check that model and forget set are those of the file"
        )
    return {n: g if cosine > 0 else -g for n, g in found.items()}, cosine < 0


def canvas_table(path: Path, *, recognised: bool = False) -> pd.DataFrame:
    """The table of UnlearnCanvas, of the published code or ours: a row for each concept and step, fractions in [0, 1].

    Args:
        recognised: whether the column UA holds how often the concept is still recognised, so that 0 is the best.
    Raises:
        SlugError: columns are missing, or a figure is no number.
    """
    try:
        frame = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as err:
        raise SlugError(f"{path} is not a CSV file: {err}; get it again") from err
    frame.columns = [str(c).strip() for c in frame.columns]
    missing = [c for c in COLUMNS if c not in frame.columns]
    if missing:
        raise SlugError(f"{path} has no column {missing[0]!r}; UnlearnCanvas's table has {', '.join(COLUMNS)}")
    frame = frame[list(COLUMNS)].copy()
    for column in COLUMNS[1:]:
        frame[column] = pd.to_numeric(frame[column].astype(str).str.rstrip("% "), errors="coerce")
    if frame[list(FIGURES)].isna().any(axis=None):
        raise SlugError(f"{path}: one of the columns {', '.join(FIGURES)} holds something that is not a number; correct it")
    if (frame[list(FIGURES)] > 1).any(axis=None):
        frame[list(FIGURES)] /= 100  # in %
    if recognised:
        frame["UA"] = 1 - frame["UA"]
    return frame
