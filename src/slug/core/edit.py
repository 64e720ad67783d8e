"""What an edit is: a change of named parameters, which a model carries within a context.

What must be recomputed after an edit follows from the parameters that it names.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch


@contextlib.contextmanager
def kept(model: Any, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Within the context the parameters `names` may be changed; afterwards, even after an error, they are as before."""
    parameters = model.parameters
    base = {n: parameters[n].detach().clone() for n in names}
    with model.changing(base):
        try:
            yield base
        finally:
            with torch.no_grad():
                for name, value in base.items():
                    parameters[name].copy_(value)


@dataclass(frozen=True, eq=False)
class Multiple(Mapping):
    """A factor times tensors, multiplied when asked for: a search keeps many steps along one gradient, none of them a copy.

    Attributes:
        tensors: {parameter name: tensor}.
        factor: what they are multiplied by.
        devices: {parameter name: where the product is wanted}; its names are those of the mapping.
    """

    tensors: Mapping[str, torch.Tensor]
    factor: float
    devices: Mapping[str, torch.device]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.factor * self.tensors[name].to(self.devices[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.devices)

    def __len__(self) -> int:
        return len(self.devices)


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of some parameters.

    Attributes:
        changes: {parameter name: tensor that is added}.
        layer: the layer that is moved, or what else made the edit, as records name it.
        step: the step size (of a trained baseline: the number of the candidate).
    """

    changes: Mapping[str, torch.Tensor] = field(default_factory=dict)
    layer: str = ""
    step: float = 0.0

    @classmethod
    def along(
        cls, model: Any, layer: str, gradient: Mapping[str, torch.Tensor], step: float, names: Iterable[str] | None = None
    ) -> "Edit":
        """The edit of one step: a POSITIVE step adds the gradient of the forget loss 1 - cos (paper, section 3).

        Args:
            model: what has `parameters` and `group`.
            layer: name of the layer, whose whole group moves.
            names: the parameters that move, where they are not the layer's group.
        """
        chosen = model.group(layer) if names is None else names
        return cls(Multiple(gradient, step, {n: model.parameters[n].device for n in chosen}), layer, step)

    def values(self, model: Any) -> dict[str, torch.Tensor]:
        """{parameter name: value} that the edit gives the model's parameters."""
        parameters = model.parameters
        return {n: parameters[n].detach() + c.to(parameters[n].device) for n, c in self.changes.items()}

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[Any]:
        """Context within which the model carries the edit. May be nested."""
        values = self.values(model)
        with kept(model, values), torch.no_grad():
            for name, value in values.items():
                model.parameters[name].copy_(value)
            yield model

    def scaled(self, factor: float) -> "Edit":
        """The edit with a step that is `factor` times as long; 0 gives an edit that changes nothing."""
        changes = {n: factor * c for n, c in self.changes.items()} if factor else {}
        return replace(self, changes=changes, step=factor * self.step)

    def __add__(self, other: "Edit") -> "Edit":
        """Both edits at once."""
        changes = dict(self.changes)
        for name, change in other.changes.items():
            changes[name] = changes[name] + change if name in changes else change
        layers = " + ".join(e.layer for e in (self, other) if e.layer)
        return Edit(changes, layers, other.step if other.layer else self.step)


class Replacement(Edit):
    """New values of some parameters instead of changes: what a trained baseline leaves behind."""

    def values(self, model: Any) -> dict[str, torch.Tensor]:
        """As Edit.values."""
        return dict(self.changes)


class InPlace(Edit):
    """An edit that the model carries already, such as a training in progress; it names the parameters that may differ."""

    @classmethod
    def of(cls, model: Any, layer: str, step: float, base: Mapping[str, torch.Tensor] | None = None) -> "InPlace":
        """An edit of all parameters, which hold their new values; where `base` is given, of those that differ from it."""
        moved = {n: p for n, p in model.parameters.items() if base is None or not torch.equal(p, base[n])}
        return cls(moved, layer, step)

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[Any]:
        """As Edit.applied: the model is left as it is."""
        yield model


def total(edits: Iterable[Edit], factors: Iterable[float] | None = None) -> Edit:
    """The sum of edits, each times its factor (1 where none are given)."""
    edits = list(edits)
    result = Edit()
    for edit, factor in zip(edits, factors or [1.0] * len(edits), strict=True):
        result = result + (edit if factor == 1 else edit.scaled(factor))
    return result
