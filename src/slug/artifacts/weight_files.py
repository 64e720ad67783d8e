"""Weight files of model folders: safetensors and pickles of tensors, and the copies of a model that they hold."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from slug import files
from slug.errors import SlugError, brief
from slug.models import canonical

SAFE, PICKLED = ".safetensors", (".bin", ".pt", ".pth", ".ckpt")  # endings of files whose tensors can be read and edited
REMEDY = "save its tensors alone as safetensors, or take it out of the model folder"


@dataclass(frozen=True)
class Copy:
    """One copy of the weights of an encoder in a model folder: the tensors of one file, or of several shards."""

    encoder: str  # folder of a pipeline's text encoder; "" for a whole CLIP or LLaVA
    family: str  # see slug.models.canonical
    prefix: str  # of its names in the files, before those of the family
    files: Mapping[str, str]  # {name in the files: file, relative to the model folder}
    shapes: Mapping[str, tuple[int, ...]]  # {name in the files: shape}
    label: str  # its file, or the index of its shards

    def views(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{canonical name: view} of {name in the files: tensor}; tensors without a canonical name are left out."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            try:
                found |= canonical.views(self.family, name.removeprefix(self.prefix), tensor) if tensor.ndim else {}
            except (KeyError, ValueError, RuntimeError):  # no tensor of such a model, by its name or by its shape
                continue
        return found

    @cached_property
    def native(self) -> dict[str, str]:
        """{canonical name: name in the files}."""
        shells = {n: torch.empty(shape, device="meta") for n, shape in self.shapes.items()}
        return {c: n for n, t in shells.items() for c in self.views({n: t})}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open. SlugError if it is damaged."""
    try:
        with safe_open(path, "pt") as f:
            yield f
    except (SafetensorError, OSError) as err:
        raise SlugError(f"{path} is not a whole safetensors file ({brief(err)}); get a sound copy of the model") from err


def _unpickled(path: Path) -> dict[str, Tensor]:
    """{name: tensor} of a pickle that holds nothing else; SlugError for any other. No code of the file is run."""
    how = {"mmap": True} if zipfile.is_zipfile(path) else {}
    found = files.read_tensors(path, REMEDY, **how)
    plain = isinstance(found, dict) and all(isinstance(n, str) for n in found)
    if not plain or not all(
        isinstance(t, Tensor) and t.layout == torch.strided and not t.is_quantized for t in found.values()
    ):
        raise SlugError(f"{path} holds more than named tensors, so that it cannot be edited; {REMEDY}")
    return found


def metadata(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file; of other files none."""
    if path.suffix != SAFE:
        return {}
    with _opened(path) as f:
        return f.metadata() or {}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the tensors of a weight file."""
    if path.suffix != SAFE:
        return {n: tuple(t.shape) for n, t in _unpickled(path).items()}
    with _opened(path) as f:
        return {n: tuple(f.get_slice(n).get_shape()) for n in f.keys()}  # noqa: SIM118  (safe_open is no dict)


def load(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """{name: tensor} of some tensors of a weight file."""
    if path.suffix != SAFE:
        found = _unpickled(path)
        return {n: found[n] for n in names}
    with _opened(path) as f:
        return {n: f.get_tensor(n) for n in names}


def load_copy(folder: Path, copy: Copy, names: Iterable[str]) -> dict[str, Tensor]:
    """{name in the files: tensor} of some tensors of a copy."""
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(copy.files[name], []).append(name)
    return {n: t for file, some in wanted.items() for n, t in load(folder / file, some).items()}


def _alone(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own: a pickle holds whole storages, and others might carry the original beside it."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def rewrite(path: Path, out: Path, changed: Mapping[str, Tensor]) -> None:
    """Write a weight file to `out` with some tensors changed, in the same format and with the same metadata."""
    if path.suffix != SAFE:
        found = _unpickled(path)
        found.update({n: changed.get(n, t) for n, t in found.items()})
        found.update({n: _alone(t) for n, t in found.items()})
        torch.save(found, out)
        return
    about = metadata(path) or None
    save_file({n: t.contiguous() for n, t in (load_file(path) | dict(changed)).items()}, out, metadata=about)


def agree(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same up to the rounding of the less precise of their dtypes."""
    if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        return False
    coarse = max((a.dtype, b.dtype), key=lambda d: torch.finfo(d).eps)
    about = torch.finfo(coarse)
    return torch.allclose(a.float(), b.float(), rtol=about.eps, atol=about.tiny * about.eps)
