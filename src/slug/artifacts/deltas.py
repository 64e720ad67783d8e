"""The outcome of SLUG: a small file that carries the edit, and model folders it is applied to and taken back from.

A delta is one safetensors file: canonical parameter name -> step * gradient (float32, canonical layout), and in its header
the step, the layer, the hash of the base tensors it edits, and figures. It refuses any other base.

An edited folder keeps slug_edits/: the original touched tensors in their own dtype, every delta applied, and the model card
that stood there; its own card says what was done. Applying and reverting recompute base + deltas (sorted by file name) in
float32 and then cast, so a revert is exact to the bit.
"""

import json
import shutil
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from slug import files, models
from slug.artifacts import cards
from slug.errors import SlugError
from slug.models import canonical

FORMAT = "slug-delta-1"


EDITS = "slug_edits"


def save(path, clip, edit, *, name, layer, step, metrics):
    """Write the delta of an edit.

    Args:
        clip: models.Clip or a models.carrier.Carrier at its base weights.
        edit: {native parameter name: step * gradient}.
        name, layer, step, metrics: what the header says of it: what is forgotten, where, and anything JSON can hold.
    """
    base = clip.canonical_views({n: clip.parameters[n] for n in edit})
    change = clip.canonical_views({n: t.float() for n, t in edit.items()})
    header = {
        "format": FORMAT,
        "name": name,
        "layer": layer,
        "step": repr(float(step)),
        "model": clip.tag,
        "base": files.tensor_hash(base),
        "metrics": json.dumps(metrics, default=str),
    }
    with files.replacing(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in change.items()}, temporary, metadata=header)


def read(path):
    """Read a delta: ({canonical name: float32 tensor}, header). SlugError if it is missing, damaged or no delta."""
    path = files.existing(path, "delta", "make one with src/clip/a2_unlearn_slug.py")
    try:
        with safe_open(path, "pt") as f:
            header = f.metadata() or {}
            tensors = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118  (safe_open is no dict)
    except (SafetensorError, OSError, struct.error) as err:
        raise SlugError(f"{path} is not a whole safetensors file ({err}); make the delta again") from err
    if header.get("format") != FORMAT:
        raise SlugError(f"{path} is no SLUG delta (its header does not say {FORMAT})")
    try:
        float(header["step"]), json.loads(header["metrics"]).items(), [header[k] for k in ("layer", "model", "base")]
    except (KeyError, ValueError, AttributeError) as err:
        raise SlugError(f"{path} has a damaged header ({err!r}); make the delta again") from err
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise SlugError(f"{path} holds NaN or infinity; make the delta again")
    return tensors, header


def check_base(header, base, where):
    """SlugError unless `base`, {canonical name: tensor} of what a delta edits, is what the delta was made for."""
    if files.tensor_hash(base) != header["base"]:
        raise SlugError(
            f"the delta was made for other weights ({header.get('model')}, {header.get('layer')}) than {where} holds; "
            "take the model it names, or make a delta for this one"
        )


def _load_weights(path):
    try:
        with safe_open(path, "pt") as f:
            metadata = f.metadata()
        return load_file(path), metadata
    except (SafetensorError, OSError) as err:
        raise SlugError(f"{path} is not a whole safetensors file ({err}); get a sound copy of the model") from err


def _recompute(family, weights, base, deltas):
    """weights <- base + all deltas, in float32 then cast, for every tensor that `base` holds. Changes `weights`."""
    for name, original in base.items():
        weights[name] = original.clone()
    sums = {n: t.float() for n, t in weights.items() if n in base}
    views = canonical.all_views(family, sums)
    for _, (tensors, _) in sorted(deltas.items()):
        for name, change in tensors.items():
            views[name] += change
    for name, value in sums.items():
        weights[name] = value.to(base[name].dtype)


def _native_names(family, weights, wanted, where):
    """{canonical name: native name} of the canonical names a delta edits; SlugError if the model lacks one."""
    table = {c: n for n, t in weights.items() if t.ndim for c in _canonical_names(family, n, t)}
    missing = next((c for c in wanted if c not in table), None)
    if missing:
        raise SlugError(f"{where} has no tensor {missing}, which the delta edits; it is a model of another kind")
    return {c: table[c] for c in wanted}


def _canonical_names(family, name, tensor):
    try:
        return canonical.views(family, name, tensor)
    except KeyError:
        return {}


def _write_folder(source, out, weight_file, weights, metadata, base, delta_files, headers):
    """Write an edited folder, whole or not at all; `source` may be `out`."""
    # Where there are edits already, the card in the folder is of them, and the original's is kept among them.
    original = (source / EDITS if (source / EDITS).is_dir() else source) / cards.FILE
    original = files.read_text(original) if original.is_file() else ""
    with files.replacing_folder(out) as temporary:
        left_out = {weight_file, source / EDITS, source / cards.FILE}
        shutil.copytree(source, temporary, ignore=lambda at, names: [n for n in names if Path(at, n) in left_out])
        save_file(weights, temporary / weight_file.relative_to(source), metadata=metadata)
        if delta_files:
            (temporary / EDITS).mkdir()
            save_file(base, temporary / EDITS / "base.safetensors")
            for name, path in delta_files.items():
                shutil.copyfile(path, temporary / EDITS / name)
            cards.write(temporary, original, next(iter(headers.values()))["model"], headers)
        if original:
            files.write_text((temporary / EDITS if delta_files else temporary) / cards.FILE, original)


def _edit_folder(source, out, change):
    """Read an (edited) folder, let `change` alter its {delta file name: path}, recompute and write it to `out`."""
    source, out = files.existing(source, "model folder", "give --model-dir"), files.resolve(out)
    if out.exists() and out.resolve() != source.resolve() and any(out.iterdir()):
        raise SlugError(f"{out} exists and is not empty; choose another --out, or the model folder itself")
    family, weight_file = models.folder_family(source)
    weights, metadata = _load_weights(weight_file)
    edits = source / EDITS
    base = load_file(edits / "base.safetensors") if edits.is_dir() else {}
    paths = {p.name: p for p in sorted(edits.glob("*.delta.safetensors"))} if edits.is_dir() else {}
    paths = change(paths)
    deltas = {name: read(path) for name, path in paths.items()}
    wanted = {c for tensors, _ in deltas.values() for c in tensors}
    native = set(_native_names(family, weights, wanted, source).values())
    base = {n: base[n] if n in base else weights[n] for n in sorted(native | set(base))}
    views = canonical.all_views(family, base)
    for tensors, header in deltas.values():
        check_base(header, {c: views[c] for c in tensors}, source)
    _recompute(family, weights, base, deltas)
    headers = {name: header for name, (_, header) in deltas.items()}
    _write_folder(source, out, weight_file, weights, metadata, {n: base[n] for n in sorted(native)}, paths, headers)
    return out


def of_folder(folder):
    """{file name: header} of the deltas that a model folder carries. SlugError if there is no such folder."""
    folder = files.existing(folder, "model folder", "give --model-dir")
    return {p.name: read(p)[1] for p in sorted((folder / EDITS).glob("*.delta.safetensors"))}


def native(clip, tensors, header):
    """{native parameter name: change} of a delta that `read` gave, for a loaded model at its base weights.

    Raises SlugError if the delta was made for other weights or another kind of model.
    """
    parameters, changes = clip.parameters, {}
    for name, p in parameters.items():
        zeros = torch.zeros_like(p, dtype=torch.float32)
        views = clip.canonical_views({name: zeros})
        found = [c for c in views if c in tensors]
        for c in found:
            views[c] += tensors[c].to(p.device)
        if found:
            changes[name] = zeros
    base = {c: v for c, v in clip.canonical_views({n: parameters[n] for n in changes}).items() if c in tensors}
    missing = next((c for c in tensors if c not in base), None)
    if missing:
        raise SlugError(f"{clip.label} has no tensor {missing}, which the delta edits; it is a model of another kind")
    check_base(header, {c: base[c] for c in tensors}, clip.label)
    return changes


def apply(paths, source, out):
    """Write the model folder `source` plus one delta or several to `out` (may be `source`). Loads in its library as it is.

    Args:
        paths: a path, or a list of them.
    Raises:
        SlugError: a wrong base, a delta that is applied already, two of one file name, or an `out` that holds something
            else.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    paths = [files.existing(p, "delta", "make one with src/clip/a2_unlearn_slug.py") for p in paths]
    named = {}
    for path in paths:
        read(path)
        name = path.name if path.name.endswith(".delta.safetensors") else f"{path.stem}.delta.safetensors"
        if name in named:
            raise SlugError(f"{named[name]} and {path} would both be kept as {name}; give each once, or rename one")
        named[name] = path

    def add(there):
        twice = next((n for n in named if n in there), None)
        if twice:
            raise SlugError(f"{twice} is applied to {source} already; revert it first")
        return {**there, **named}

    return _edit_folder(source, out, add)


def revert(names, source, out):
    """Take one delta or several back out of the edited folder `source`; the result in `out` is exact to the bit.

    Args:
        names: file name of an applied delta (a path's last part is enough), or a list of them.
    """
    wanted = {Path(n).name for n in ([names] if isinstance(names, (str, Path)) else names)}

    def remove(there):
        missing = next((n for n in sorted(wanted) if n not in there), None)
        if missing:
            raise SlugError(f"{missing} is not applied to {source}; applied are: {', '.join(there) or 'none'}")
        return {n: p for n, p in there.items() if n not in wanted}

    return _edit_folder(source, out, remove)
