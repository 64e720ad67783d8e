"""Deltas on disk: small files that hold an edit, and model folders to which they are applied and from which reverted.

A delta is one safetensors file: canonical parameter name -> change (float32, canonical layout). Its header has the step, the
layer, the hash of the base tensors that it edits, and figures. It refuses any other base.

An edited folder has a subfolder slug_edits/ with the original tensors in their own dtype, all applied deltas, and the
original model card. Applying and reverting compute base + deltas (sorted by file name) in float32 and then cast, so a revert
is exact to the bit.
"""

import json
import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from slug import files, models
from slug.artifacts import cards
from slug.artifacts.cards import Header
from slug.errors import SlugError
from slug.models import canonical

FORMAT = "slug-delta-1"
EDITS = "slug_edits"  # subfolder of an edited folder
ENDING = ".delta.safetensors"
REMEDY = "make one with src/clip/a2_unlearn_slug.py"


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
    change = model.canonical_views({n: t.float() for n, t in edit.items()})
    header = {
        "format": FORMAT,
        "name": name,
        "layer": layer,
        "step": repr(float(step)),
        "model": model.tag,
        "base": files.tensor_hash(base),
        "metrics": json.dumps(metrics, default=str),
    }
    with files.replacing(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in change.items()}, temporary, metadata=header)


def read(path: str | Path) -> tuple[dict[str, Tensor], Header]:
    """({canonical name: float32 tensor}, header) of a delta. SlugError if it is missing, damaged or not a delta."""
    path = files.existing(path, "delta", REMEDY)
    try:
        with safe_open(path, "pt") as f:
            header = f.metadata() or {}
            tensors = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118  (safe_open is no dict)
    except (SafetensorError, OSError, struct.error) as err:
        raise SlugError(f"{path} is not a whole safetensors file ({err}); make the delta again") from err
    if header.get("format") != FORMAT:
        raise SlugError(f"{path} is not a SLUG delta: its header does not say {FORMAT}; {REMEDY}")
    try:
        float(header["step"]), json.loads(header["metrics"]).items(), [header[k] for k in ("layer", "model", "base")]
    except (KeyError, ValueError, AttributeError) as err:
        raise SlugError(f"{path} has a damaged header ({err!r}); make the delta again") from err
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise SlugError(f"{path} holds NaN or infinity; make the delta again")
    return tensors, header


def check_base(header: Header, base: Mapping[str, Tensor], where: str | Path) -> None:
    """SlugError unless `base`, {canonical name: tensor}, are the tensors that the delta was made for."""
    if files.tensor_hash(base) != header["base"]:
        raise SlugError(
            f"the delta was made for other weights ({header.get('model')}, {header.get('layer')}) than those of {where}; "
            "take the model it names, or make a delta for this one"
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
            changes[name] = torch.zeros_like(parameter, dtype=torch.float32)
            change = model.canonical_views({name: changes[name]})
            for c in views:
                change[c] += tensors[c].to(parameter.device)
    _check_names(tensors, base, model.label)
    check_base(header, base, model.label)
    return changes


def of_model(model: Any, path: str | Path) -> dict[str, Tensor]:
    """{the model's own parameter name: change} of a delta file; see `native`."""
    return native(model, *read(path))


def of_folder(folder: str | Path) -> dict[str, Header]:
    """{file name: header} of the deltas that are applied to a model folder. SlugError if there is no such folder."""
    found = files.existing(folder, "model folder", "give --model-dir") / EDITS
    return {p.name: read(p)[1] for p in sorted(found.glob(f"*{ENDING}"))}


def apply(paths: str | Path | Iterable[str | Path], source: str | Path, out: str | Path) -> Path:
    """Write the model folder `source` with one or more deltas applied to `out`, which may be `source`.

    The library of the model loads the result as it loads the original. Returns the folder. SlugError: a wrong base, a delta
    that is applied already, two of one file name, or an `out` that is not empty.
    """
    named: dict[str, Path] = {}
    for path in [files.existing(p, "delta", REMEDY) for p in _listed(paths)]:
        read(path)
        name = path.name if path.name.endswith(ENDING) else f"{path.stem}{ENDING}"
        if name in named:
            raise SlugError(f"{named[name]} and {path} would both be kept as {name}; give each once, or rename one")
        named[name] = path

    return _edit_folder(source, out, named, set())


def revert(names: str | Path | Iterable[str | Path], source: str | Path, out: str | Path) -> Path:
    """Write the edited folder `source` without one or more of its deltas to `out`, exact to the bit. Returns the folder.

    Of each path in `names` only the file name counts. SlugError: a delta is not applied, or `out` is not empty.
    """
    return _edit_folder(source, out, {}, {Path(n).name for n in _listed(names)})


def _listed(given: str | Path | Iterable[str | Path]) -> list[str | Path]:
    return [given] if isinstance(given, (str, Path)) else list(given)


def _check_names(wanted: Iterable[str], there: Mapping[str, Any], where: str | Path) -> None:
    """SlugError if one of the canonical names that a delta edits is not there."""
    missing = next((c for c in wanted if c not in there), None)
    if missing:
        raise SlugError(f"{where} has no tensor {missing}, which the delta edits; it is a model of another kind")


def _canonical_names(family: str, name: str, tensor: Tensor) -> Iterable[str]:
    try:
        return canonical.views(family, name, tensor)
    except KeyError:
        return ()


def _edit_folder(model_dir: str | Path, to: str | Path, added: dict[str, Path], removed: set[str]) -> Path:
    """Write a model folder to another one, with some deltas, {file name: path}, added and some removed."""
    source, out = files.existing(model_dir, "model folder", "give --model-dir"), files.resolve(to)
    if out.exists() and out.resolve() != source.resolve() and any(out.iterdir()):
        raise SlugError(f"{out} exists and is not empty; choose another --out, or the model folder itself")
    family, weight_file = models.folder_family(source)
    try:
        with safe_open(weight_file, "pt") as f:
            metadata = f.metadata()
        weights = load_file(weight_file)
    except (SafetensorError, OSError) as err:
        raise SlugError(f"{weight_file} is not a whole safetensors file ({err}); get a sound copy of the model") from err
    edits = source / EDITS
    base = load_file(edits / "base.safetensors") if edits.is_dir() else {}
    there = {p.name: p for p in sorted(edits.glob(f"*{ENDING}"))}
    for name in (n for n in added if n in there):
        raise SlugError(f"{name} is applied to {source} already; revert it first")
    for name in sorted(removed - set(there)):
        raise SlugError(f"{name} is not applied to {source}; applied are: {', '.join(there) or 'none'}")
    paths = {n: p for n, p in (there | added).items() if n not in removed}
    deltas = {name: read(path) for name, path in paths.items()}

    native_of = {c: n for n, t in weights.items() if t.ndim for c in _canonical_names(family, n, t)}
    wanted = [c for tensors, _ in deltas.values() for c in tensors]
    _check_names(wanted, native_of, source)
    touched = {native_of[c] for c in wanted}
    base = {n: base.get(n, weights[n]) for n in sorted(touched | set(base))}
    views = canonical.all_views(family, base)
    for tensors, header in deltas.values():
        check_base(header, {c: views[c] for c in tensors}, source)
    sums = {n: t.to(torch.float32, copy=True) for n, t in base.items()}  # base + all deltas, then cast to base's dtypes
    views = canonical.all_views(family, sums)
    for _, (tensors, _) in sorted(deltas.items()):
        for name, change in tensors.items():
            views[name] += change
    weights |= {n: t.to(base[n].dtype) for n, t in sums.items()}
    base = {n: t for n, t in base.items() if n in touched}
    headers = {name: header for name, (_, header) in deltas.items()}
    with files.replacing_folder(out) as temporary:
        left_out = {weight_file, edits, source / cards.FILE}
        shutil.copytree(source, temporary, ignore=lambda at, names: [n for n in names if Path(at, n) in left_out])
        save_file(weights, temporary / weight_file.relative_to(source), metadata=metadata)
        _write_edits(source, temporary, base, paths, headers)
    return out


def _write_edits(
    source: Path, out: Path, base: dict[str, Tensor], paths: dict[str, Path], headers: dict[str, Header]
) -> None:
    """Write the cards of the folder `out`, which is made from `source`, and its EDITS if there are any."""
    # Where there are edits already, the card in the folder is theirs, and the original card is kept beside them.
    card = (source / EDITS if (source / EDITS).is_dir() else source) / cards.FILE
    original = files.read_text(card) if card.is_file() else ""
    if paths:
        (out / EDITS).mkdir()
        save_file(base, out / EDITS / "base.safetensors")
        for name, path in paths.items():
            shutil.copyfile(path, out / EDITS / name)
        cards.write(out, original, next(iter(headers.values()))["model"], headers)
    if original:
        files.write_text((out / EDITS if paths else out) / cards.FILE, original)
