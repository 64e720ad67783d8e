"""Delta files: an edit as one safetensors file, written, read and checked.

A delta holds canonical parameter name -> change (float32, canonical layout). Its header has the step, the layer, the hash of
the base tensors that it edits, the hash of the changes themselves, and figures. A delta of a pipeline with several text
encoders names the encoder before each tensor ("text_encoder_2.text_model..."), and has the hash of each one's base as well.
Whatever is read from it is checked first: a delta is a file that people send each other.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slug import files
from slug.artifacts.cards import SHARES, Header
from slug.errors import SlugError, brief

FORMAT = "slug-delta-1"
ENDING = ".delta.safetensors"
REMEDY = "make one with src/clip/a2_unlearn_slug.py"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # that a change may be stored in
ROUNDED = (torch.float16, torch.bfloat16)  # a model may have been rounded to one of these when its delta was made
TOWER = re.compile(r"(text_encoder(?:_\d+)?)\.(.+)")  # a tensor's name where it says the text encoder
Delta = tuple[dict[str, Tensor], Header]  # ({canonical name: float32 change}, header)


def save(
    path: Path, model: Any, edit: Mapping[str, Tensor], *, name: str, layer: str, step: float, metrics: Mapping[str, Any]
) -> None:
    """Write the delta of an edit, {parameter name: change}, of a Clip or HostModel at its base weights.

    Args:
        name: what is forgotten.
        layer, step: the layer that moved and its step, or what else made the edit.
        metrics: figures for the header, anything JSON can hold.
    """
    base = model.canonical_views({n: model.parameters[n] for n in edit})
    views = model.canonical_views({n: t.float() for n, t in edit.items()})
    change = {n: t.detach().cpu().contiguous() for n, t in views.items()}
    header = {
        "format": FORMAT,
        "name": name,
        "layer": layer,
        "step": repr(float(step)),
        "model": model.tag,
        "base": files.tensor_hash(base),
        "content": files.tensor_hash(change),
        "metrics": json.dumps(metrics, default=str),
    }
    bases = {tower: files.tensor_hash(own) for tower, own in by_tower(base).items() if tower}
    header |= {"bases": json.dumps(bases)} if bases else {}
    with files.replacing(path) as temporary:
        save_file(change, temporary, metadata=header)


def by_tower(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{text encoder: {name without it: tensor}} of {name: tensor}; "" stands for names that say none."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        said = TOWER.fullmatch(name)
        found.setdefault(said[1] if said else "", {})[said[2] if said else name] = tensor
    return found


def of_each_tower(delta: Delta) -> dict[str, Delta]:
    """{text encoder: its part of a delta that `read` returned}; {"": the delta} where it says none."""
    tensors, header = delta
    if "bases" not in header:
        return {"": delta}
    bases = json.loads(header["bases"])
    return {tower: (own, {**header, "base": bases[tower]}) for tower, own in by_tower(tensors).items()}


def read(path: str | Path) -> Delta:
    """({canonical name: float32 tensor}, header) of a delta. SlugError if it is missing, damaged or not a delta."""
    path = files.existing(path, "delta", REMEDY)
    try:
        with safe_open(path, "pt") as f:
            header = f.metadata() or {}
            tensors = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118  (safe_open is no dict)
    except (SafetensorError, OSError, struct.error) as err:
        raise SlugError(f"{path} is not a whole safetensors file ({brief(err)}); make the delta again") from err
    if header.get("format") != FORMAT:
        raise SlugError(f"{path} is not a SLUG delta: its header does not say {FORMAT}; {REMEDY}")
    try:
        _check_header(header)
        if json.loads(header.get("bases", "{}")).keys() != by_tower(tensors).keys() - {""} or (
            "bases" in header and "" in by_tower(tensors)
        ):
            raise ValueError("bases")
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as err:
        raise SlugError(f"{path} has a damaged header ({brief(repr(err))}); make the delta again") from err
    odd = next((n for n, t in tensors.items() if t.dtype not in FLOATS), None)
    if odd:
        raise SlugError(
            f"{path} holds {brief(odd)} as {tensors[odd].dtype}, but a change must be floating-point; make the delta again"
        )
    tensors = {n: t.float() for n, t in tensors.items()}
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise SlugError(f"{path} holds NaN or infinity; make the delta again")
    if header.get("content", "") not in ("", files.tensor_hash(tensors)):  # earlier versions wrote none
        raise SlugError(f"{path} is damaged: its tensors are not those that its header describes; get or make it again")
    return tensors, header


def _check_header(header: Header) -> None:
    """Raise one of many kinds of errors unless all that cards and lists read from a header can be read."""
    if not math.isfinite(float(header["step"])):
        raise ValueError(f"step {header['step']}")
    named = header["model"] and header["base"]  # an edit of several layers, or of none, names no layer
    if not named or not all(header[key].isprintable() for key in ("layer", "model", "base")):
        raise ValueError("layer, model or base")
    if not header.get("name", "").isprintable():
        raise ValueError("name")
    metrics = json.loads(header["metrics"])
    for part in (metrics, *metrics.get("towers", {}).values()):
        _check_figures(part)
    for layer, step in metrics.get("chosen") or []:
        if not isinstance(layer, str) or not math.isfinite(float(step)):
            raise ValueError("chosen")
    others = metrics.get("together_with") or []
    if not isinstance(others, list) or not all(isinstance(n, str) for n in others):
        raise TypeError("together_with")


def _check_figures(metrics: Mapping[str, Any]) -> None:
    """As _check_header, of figures."""
    for key in ("method", "split", "half"):
        if not isinstance(metrics.get(key, ""), (str, type(None))):
            raise TypeError(key)
    for key in {k for pair in SHARES.items() for k in (pair[0], pair[1][1]) if k}:
        if metrics.get(key) is not None and not isinstance(metrics[key], (int, float)):
            raise TypeError(key)
        float(metrics.get(key) or 0)  # a number of 400 digits is none


def made_for(header: Header, base: Mapping[str, Tensor]) -> bool:
    """Whether the delta was made for `base`, {canonical name: tensor}, or for these tensors rounded to 16 bits."""
    if files.tensor_hash(base) == header["base"]:
        return True
    return any(files.tensor_hash({n: t.to(d) for n, t in base.items()}) == header["base"] for d in ROUNDED)


def other_base(header: Header, where: str | Path) -> SlugError:
    """What to say of a delta that was not made for the weights of `where`."""
    return SlugError(
        f"the delta was made for other weights ({header.get('model')}, {header.get('layer')}) than those of {where}; "
        "take the model it names, or make a delta for this one"
    )


def check_names(tensors: Mapping[str, Tensor], there: Mapping[str, Tensor], where: str | Path) -> None:
    """SlugError unless each tensor of a delta has one of its name and shape `there`, {canonical name: tensor}."""
    for name, change in tensors.items():
        if name not in there:
            raise SlugError(
                f"{where} has no tensor {brief(name)}, which the delta edits; the model is of another kind; "
                "give the model that the delta was made for"
            )
        if there[name].shape != change.shape:
            shapes = f"{tuple(change.shape)} in the delta and {tuple(there[name].shape)} in {where}"
            raise SlugError(
                f"{brief(name)} is {shapes}; the model has another size; give the model that the delta was made for"
            )


def native(model: Any, tensors: Mapping[str, Tensor], header: Header) -> dict[str, Tensor]:
    """{the model's own parameter name: change} of a delta that `read` returned, on the model's devices.

    `model` is a Clip or HostModel at its base weights. SlugError: made for other weights or another kind of model.
    """
    changes: dict[str, Tensor] = {}
    base: dict[str, Tensor] = {}
    for name, parameter in model.parameters.items():
        views = {c: v for c, v in model.canonical_views({name: parameter}).items() if c in tensors}
        if views:
            base |= views
            check_names({c: tensors[c] for c in views}, views, model.label)
            changes[name] = torch.zeros_like(parameter, dtype=torch.float32)
            change = model.canonical_views({name: changes[name]})
            for c in views:
                change[c] += tensors[c].to(parameter.device)
    check_names(tensors, base, model.label)
    if files.tensor_hash(base) != header["base"]:
        raise other_base(header, model.label)
    return changes


def of_model(model: Any, path: str | Path) -> dict[str, Tensor]:
    """{the model's own parameter name: change} of a delta file; see `native`."""
    return native(model, *read(path))
