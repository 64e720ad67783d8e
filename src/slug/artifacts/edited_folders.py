"""Edited folders: how deltas get into every copy of a model's weights, out of them again, and how a folder is sealed.

An edited folder has a subfolder slug_edits/ with the original tensors in their own dtype, all applied deltas, and the
original model card. Applying and reverting compute base + deltas (sorted by file name) in float32 and then cast, for every
copy of the weights in its own dtype, so that a revert is exact to the bit. A sealed folder has no slug_edits/.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slug import files
from slug.artifacts import cards, checking, delta_files, folders, weight_files
from slug.artifacts.delta_files import ENDING, Delta
from slug.artifacts.folders import EDITS, ModelFolder
from slug.artifacts.weight_files import Copy
from slug.errors import SlugError, brief
from slug.models.canonical import UNET

# In EDITS: {"file:name in it": original tensor}, and in its header the hash of each edited file as it was written. Earlier
# versions wrote {name: original tensor} and no hashes.
BASE = "base.safetensors"


@dataclass
class Plan:
    """An edit of a model folder: the deltas before and after it, and what becomes of each copy of the weights."""

    folder: ModelFolder
    before: dict[str, Delta]  # {file name: delta}
    after: dict[str, Delta]
    kept: dict[str, Tensor]  # {"file:name in it": original}
    encoders: dict[str, list[str]] = field(default_factory=dict)  # {file name of a delta: encoders that it edits}
    originals: dict[str, Tensor] = field(default_factory=dict)  # of all tensors touched by `after`, named as in `kept`
    edited: list[tuple[Copy, dict[str, Tensor]]] = field(default_factory=list)  # copies that change, and their new tensors

    def of(self, deltas: Mapping[str, Delta], encoder: str) -> dict[str, Delta]:
        """Those of the deltas that edit an encoder, each without what it does to other encoders."""
        found = {n: delta_files.of_each_tower(d) for n, d in deltas.items() if encoder in self.encoders[n]}
        return {n: parts.get(encoder) or parts[""] for n, parts in found.items()}

    def untouched(self) -> list[str]:
        """The encoders that no delta edits after the edit."""
        return [e for e in self.folder.encoders if not self.of(self.after, e)]

    def not_edited(self, names: Iterable[str] = ()) -> dict[str, list[str]]:
        """{encoder: what it still knows} after the edit; of the deltas of these file names, or of all."""
        found: dict[str, list[str]] = {}
        forgotten: dict[str, set[str]] = {}
        for file, (_, header) in self.after.items():
            forgotten.setdefault(cards.name_of(file, header), set()).update(self.encoders[file])
        wanted = {cards.name_of(f, self.after[f][1]) for f in names} or forgotten.keys()
        for name in (n for n in forgotten if n in wanted):
            for encoder in (e for e in self.folder.encoders if e not in forgotten[name]):
                found.setdefault(encoder, []).append(name)
        return found


def edit(
    model_dir: str | Path,
    to: str | Path,
    added: Mapping[str, Path],  # {file name: delta}
    removed: set[str],  # file names
    *,
    seal: bool = False,
    partial: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a model folder to another one, or to itself, with some deltas added and some removed. Returns the folder."""
    source, out = places(model_dir, to)
    there = {p.name: p for p in sorted((source / EDITS).glob(f"*{ENDING}"))}
    for name in (n for n in added if n in there):
        raise SlugError(f"{name} is applied to {source} already; revert it first")
    for name in sorted(removed - set(there)):
        raise SlugError(
            f"{name} is not applied to {source}; applied deltas: {', '.join(there) or 'none, or the folder is sealed'}"
        )
    paths = {n: p for n, p in (there | dict(added)).items() if n not in removed}
    if seal and not paths:
        raise SlugError(
            f"{source} holds no delta, so there is nothing to seal; give --model-dir a folder that `apply` wrote"
        )
    before, new = ({n: delta_files.read(p) for n, p in some.items()} for some in (there, added))
    folder = folders.scan(source)
    plan = Plan(folder, before, {n: (before | new)[n] for n in paths}, _kept(folder))
    for name, delta in (before | new).items():
        plan.encoders[name] = _encoders_of(plan, delta)
    if added and not partial and plan.not_edited(added):
        encoder, names = next(iter(plan.not_edited(added).items()))
        raise SlugError(
            f"{encoder} of {source} would still know {', '.join(names)}: give --delta one for each text encoder, or say "
            "--partial to edit the others only"
        )
    for encoder in folder.encoders:
        if plan.of(before | new, encoder):
            _plan_encoder(plan, encoder)
    _check_unchanged(folder)
    _check_strays(plan)
    contents = _contents(plan, seal)
    if contents.left_out and out == source:
        raise SlugError(
            f"{cards.few(contents.left_out)} in {source} cannot be edited and would be deleted; give another --out, or take "
            "them out of the folder"
        )
    with files.replacing_folder(out) as temporary:
        _write(plan, temporary, contents, paths)
        loaded = checking.load_and_compare(temporary, folder, plan.edited)
    for line in [*cards.lines(contents), *loaded]:
        say(line)
    if paths and not seal:
        say(
            f"note: {out / EDITS} keeps the original tensors for a revert: who gets it gets back what was forgotten; seal "
            "the folder before you give it away (apply --seal, or the subcommand seal)"
        )
    return out


def places(model_dir: str | Path, to: str | Path) -> tuple[Path, Path]:
    """(model folder, folder to write), links followed. SlugError if one cannot be used."""
    files.recover_folder(files.resolve(model_dir))
    source = Path(os.path.realpath(files.existing(model_dir, "model folder", "give --model-dir")))
    out = Path(os.path.realpath(files.resolve(to)))
    if out == source:
        if not os.access(source, os.W_OK):
            raise SlugError(f"{source} is read-only; give another --out")
    elif source in out.parents:
        raise SlugError(f"{out} lies inside the model folder {source}; give an --out outside of it")
    elif out.exists() and not out.is_dir():
        raise SlugError(f"{out} is a file; give --out a folder that does not exist")
    elif out.exists() and any(out.iterdir()):
        raise SlugError(f"{out} exists and is not empty; choose another --out, or the model folder itself")
    return source, out


def _kept(folder: ModelFolder) -> dict[str, Tensor]:
    """{"file:name in it": original} of an edited folder; nothing of another one."""
    path = folder.path / EDITS / BASE
    if not path.parent.is_dir():
        return {}
    try:
        held = load_file(path)
    except (SafetensorError, OSError) as err:
        raise SlugError(f"{path} is not a whole safetensors file ({brief(err)}); get the original model again") from err
    found: dict[str, Tensor] = {}
    for key, tensor in held.items():
        if key.partition(":")[0] in folder.shapes:
            found[key] = tensor
        else:  # of an earlier version, which edited one file
            copy = next((c for c in folder.copies if key in c.files), None)
            found |= {f"{copy.files[key]}:{key}": tensor} if copy else {}
    return found


def _check_unchanged(folder: ModelFolder) -> None:
    """SlugError if an edited file is not as it was written: other tensors than the edited ones are no originals, either."""
    source, base = folder.path, folder.path / EDITS / BASE
    try:
        written = json.loads(weight_files.metadata(base).get("written", "{}")) if base.is_file() else {}
        changed = [f for f, sha in written.items() if f in folder.shapes and files.file_hash(source / f) != sha]
    except (ValueError, AttributeError, TypeError, RecursionError) as err:
        raise SlugError(f"{base} has a damaged header; get the original model again") from err
    if changed:
        raise _was_changed(changed[0], source, "not in the edited tensors")


def _was_changed(file: str, source: Path, where: str) -> SlugError:
    return SlugError(
        f"{file} in {source} was changed after it was edited ({where}), so its original is not known; edit the "
        "original model anew, and train or cast it after sealing"
    )


def _originals(plan: Plan, copy: Copy, names: Iterable[str]) -> dict[str, Tensor]:
    """{name in the files: original tensor} of a copy: as it was kept, else as it is."""
    kept = {n: plan.kept[f"{copy.files[n]}:{n}"] for n in names if f"{copy.files[n]}:{n}" in plan.kept}
    return kept | weight_files.load_copy(plan.folder.path, copy, [n for n in names if n not in kept])


def _base(plan: Plan, copy: Copy, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """{canonical name: original} of what a delta edits in a copy; None if the copy lacks one of them."""
    if not tensors.keys() <= copy.native.keys():
        return None
    views = copy.views(_originals(plan, copy, sorted({copy.native[c] for c in tensors})))
    found = {c: views[c] for c in tensors if c in views}
    return found if all(c in found and found[c].shape == t.shape for c, t in tensors.items()) else None


def _encoders_of(plan: Plan, delta: Delta) -> list[str]:
    """The encoders that a delta was made for: those that it names, else by the hash of their weights. SlugError if there are
    none, or one that it names has other weights."""
    if not delta[0]:
        raise SlugError(f"the delta of {delta[1]['layer']} changes nothing; {delta_files.REMEDY}")
    if any(name.startswith(UNET) for name in delta[0]):
        raise SlugError(
            f"the delta of {delta[1]['layer']} edits the UNet, and model folders are edited in their text encoders only: "
            f"load the pipeline with diffusers, add each of the delta's tensors to the parameter of pipe.unet that it names "
            f"after {UNET!r}, and write it with pipe.save_pretrained"
        )
    if not plan.folder.copies:
        fixed = f"only {cards.few(plan.folder.fixed)}" if plan.folder.fixed else "no weight files"
        raise SlugError(f"{plan.folder.path} has {fixed}: save the model as safetensors or .bin; then it can be edited")
    parts = delta_files.of_each_tower(delta)
    return [e for tower, part in parts.items() for e in _fitting(plan, part, [tower] if tower else plan.folder.encoders)]


def _fitting(plan: Plan, delta: Delta, encoders: list[str]) -> list[str]:
    """Those of the encoders whose weights a delta was made for. SlugError if there are none."""
    tensors, header = delta
    copies = [c for c in plan.folder.copies if c.encoder in encoders]
    found = []
    for encoder in encoders:
        bases = (_base(plan, c, tensors) for c in copies if c.encoder == encoder)
        if any(delta_files.made_for(header, b) for b in bases if b is not None):
            found.append(encoder)
    if found:
        return found
    if not copies:
        raise SlugError(f"{plan.folder.path} has no {encoders[0]} that can be edited, and the delta edits it")
    copy = next((c for c in copies if tensors.keys() <= c.native.keys()), copies[0])
    shells = {n: torch.empty(shape, device="meta") for n, shape in copy.shapes.items()}
    delta_files.check_names(tensors, copy.views(shells), plan.folder.path)
    raise delta_files.other_base(header, plan.folder.path)


def _plan_encoder(plan: Plan, encoder: str) -> None:
    """Plan the edit of all copies of an encoder. SlugError if they are not copies of one model, or were changed since."""
    old, new = plan.of(plan.before, encoder), plan.of(plan.after, encoder)
    reference: dict[str, tuple[Copy, Tensor]] = {}  # {canonical name: the copy that a delta was made for, and its original}
    for tensors, header in {**old, **new}.values():
        for copy in plan.folder.copies_of(encoder):
            base = _base(plan, copy, tensors)
            if base is not None and delta_files.made_for(header, base):
                reference |= {c: (copy, t) for c, t in base.items() if c not in reference}
                break
    for copy in plan.folder.copies_of(encoder):
        touched = sorted({copy.native[c] for c in reference if c in copy.native})
        originals = _originals(plan, copy, touched)
        for name, view in copy.views(originals).items():
            other, original = reference.get(name, (copy, view))
            if not weight_files.agree(view, original):
                raise SlugError(
                    f"{copy.label} in {plan.folder.path} holds other weights of {name} than {other.label}, for which the "
                    "delta was made; take the file out of the folder, or get a sound copy of the model"
                )
        now = weight_files.load_copy(plan.folder.path, copy, touched)
        is_kept = {n for n in touched if f"{copy.files[n]}:{n}" in plan.kept}
        left = _sums(copy, {n: originals[n] for n in is_kept}, old)
        changed = [n for n in sorted(is_kept) if not _same(now[n], left[n])]
        if changed:
            raise _was_changed(copy.label, plan.folder.path, f"{len(changed)} of the edited tensors: {cards.few(changed)}")
        wanted = _sums(copy, originals, new)
        bad = next(
            (n for n, t in wanted.items() if not torch.isfinite(t).all() and torch.isfinite(originals[n]).all()), None
        )
        if bad:
            raise SlugError(f"the edit makes {bad} of {copy.label} infinite in {wanted[bad].dtype}; take a smaller step")
        still = {copy.native[c] for tensors, _ in new.values() for c in tensors if c in copy.native}
        plan.originals |= {f"{copy.files[n]}:{n}": originals[n] for n in still}
        if touched:
            plan.edited.append((copy, wanted))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _sums(copy: Copy, originals: Mapping[str, Tensor], deltas: Mapping[str, Delta]) -> dict[str, Tensor]:
    """{name in the files: original + all changes}: the sum in float32, the result in the original's dtype."""
    exact = (torch.float32, torch.float64)
    sums = {n: t.to(t.dtype if t.dtype in exact else torch.float32, copy=True) for n, t in originals.items()}
    views = copy.views(sums)
    for _, (tensors, _) in sorted(deltas.items()):
        for name in tensors.keys() & views.keys():
            views[name] += tensors[name]
    return {n: t.to(originals[n].dtype) for n, t in sums.items()}


def _check_strays(plan: Plan) -> None:
    """SlugError if a tensor that no delta edits equals the original of one that is edited: a copy under another name."""
    wanted: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in plan.originals.values():
        for t in (tensor, tensor.T) if tensor.ndim == 2 else (tensor,):
            if t.numel() and t.float().min() < t.float().max():  # tensors of one value are equal by chance
                wanted.setdefault(tuple(t.shape), []).append(t)
    for file, shapes in plan.folder.shapes.items():
        if file.split("/")[0] in plan.untouched():
            continue
        for name in (n for n, s in shapes.items() if s in wanted and f"{file}:{n}" not in plan.originals):
            tensor = weight_files.load(plan.folder.path / file, [name])[name]
            if any(weight_files.agree(tensor[:1], t[:1]) and weight_files.agree(tensor, t) for t in wanted[shapes[name]]):
                raise SlugError(
                    f"{plan.folder.path / file} holds a copy of what the delta edits under the name {brief(name)}, where it "
                    "cannot be edited; take the file out of the folder"
                )


def _contents(plan: Plan, seal: bool) -> cards.Contents:
    """What the card and the printed lines say of the folder after the edit."""
    edited = sorted({f for copy, changed in plan.edited if plan.of(plan.after, copy.encoder) for f in _files(copy, changed)})
    left_out = plan.folder.fixed_beside(plan.untouched()) if plan.after else []
    return cards.Contents(edited, plan.not_edited(), left_out, seal)


def _files(copy: Copy, changed: Iterable[str]) -> set[str]:
    return {copy.files[n] for n in changed}


def _write(plan: Plan, out: Path, contents: cards.Contents, paths: Mapping[str, Path]) -> None:
    """Write the model folder `out`, its card, and its EDITS unless it is sealed or has no deltas."""
    source = plan.folder.path
    changes: dict[str, dict[str, Tensor]] = {}
    for copy, changed in plan.edited:
        for name, tensor in changed.items():
            changes.setdefault(copy.files[name], {})[name] = tensor
    out.mkdir()
    for file in (f for f in plan.folder.files if f not in contents.left_out and f != cards.FILE):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        if file in changes:
            weight_files.rewrite(source / file, out / file, changes[file])
        else:
            shutil.copyfile(source / file, out / file)
    # Where there are edits already, the card in the folder is theirs, and the original card is kept beside them.
    card = (source / EDITS if (source / EDITS).is_dir() else source) / cards.FILE
    original = files.read_text(card) if card.is_file() else ""
    headers = {name: header for name, (_, header) in plan.after.items()}
    if paths:
        cards.write(out, original, next(iter(headers.values()))["model"], headers, contents)
    if paths and not contents.sealed:
        (out / EDITS).mkdir()
        written = {"written": json.dumps({f: files.file_hash(out / f) for f in sorted(changes)})}
        save_file({n: t.contiguous() for n, t in plan.originals.items()}, out / EDITS / BASE, metadata=written)
        for name, path in paths.items():
            shutil.copyfile(path, out / EDITS / name)
    if original and not contents.sealed:
        files.write_text((out / EDITS if paths else out) / cards.FILE, original)
