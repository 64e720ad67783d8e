"""Host models: pipelines and vision-language models that contain one tower of a CLIP.

SLUG's gradients, Pareto fronts and steps are those of the CLIP (paper, section 3); edits reach the host by parameter names.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from slug import files
from slug.errors import SlugError
from slug.models.clip import Clip


class HostModel:
    """A model and the CLIP whose tower it uses."""

    encoder = ""  # the tower that the host uses: vision or language
    prefix = ""  # beginning of the CLIP's names of that tower's parameters; the host may omit it
    label = ""  # name of the model for people

    def __init__(self, clip: Clip):
        self.clip = clip  # a Hugging Face CLIP with the same weights
        self.origin = ""  # the folder it was loaded from, where it is known
        # {name in an edit: parameter}: those of the tower that the host reads, by the CLIP's names, and others to edit.
        self.tensors: dict[str, torch.nn.Parameter] = {}

    def tower_tensors(self, module: torch.nn.Module, what: str) -> dict[str, torch.nn.Parameter]:
        """{the CLIP's name: parameter of `module`} of the tower. SlugError if the CLIP has other weights than `what`."""
        short = {n.removeprefix(self.prefix): p for n, p in module.named_parameters()}
        names = [n for n in self.clip.parameters if n.startswith(self.prefix) and n.removeprefix(self.prefix) in short]
        found = {n: short[n.removeprefix(self.prefix)] for n in names}
        for n, p in found.items():
            own = self.clip.parameters[n].to(p.dtype)  # the host's weights may be rounded
            if p.shape != own.shape or not torch.allclose(p.float().cpu(), own.float().cpu(), atol=2e-3):
                raise SlugError(f"{self.clip.label} is not the CLIP of this {what}: {n} differs; give the model's own CLIP")
        if not found:
            raise SlugError(
                f"{self.clip.label} is not the CLIP of this {what}: no parameter has a name in common; "
                "give the model's own CLIP"
            )
        return found

    @property
    def tag(self) -> str:
        """Name of the model in file names."""
        return files.safe_name(self.label)

    @property
    def towers(self) -> "Mapping[str, HostModel]":
        """{beginning of the names in an edit: what SLUG searches on}; only a host of several towers has names for them."""
        return {"": self}

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """`tensors`: the parameters that a delta of this model may edit."""
        return self.tensors

    def changing(self, names: Iterable[str]) -> contextlib.AbstractContextManager[Any]:
        """As Clip.changing."""
        return contextlib.nullcontext()

    def canonical_views(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As Clip.canonical_views; the names of a host's tensors are canonical already."""
        return dict(tensors)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for m in self.modules.values() for p in m.parameters())

    def weights_hash(self) -> str:
        """Hash of all weights."""
        return files.tensor_hash({f"{k}.{n}": p for k, m in self.modules.items() for n, p in m.named_parameters()})

    def candidates(self) -> list[str]:
        """Names of the CLIP's layers that SLUG may edit and whose whole group the host reads, in the CLIP's order."""
        groups = {n: self.clip.group(n) for n, encoder in self.clip.candidates().items() if encoder == self.encoder}
        return [n for n, group in groups.items() if all(m in self.tensors for m in group)]
