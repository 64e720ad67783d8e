"""Which layers to try: importance, alignment and the Pareto front of each encoder (paper, section 3)."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from slug.models.canonical import ALONE

TOGETHER = "together"  # instead of a layer's name: several layers that move by one step


class Layer(NamedTuple):
    """One named parameter tensor with the two figures it is ranked by."""

    name: str
    encoder: str  # vision or language
    importance: float  # ||grad L_forget||_F / ||theta||_F
    alignment: float  # cos(grad L_forget, grad L_retain), signed; the front uses its absolute value


def figures(
    model: Any, forget: Mapping[str, torch.Tensor], retain: Mapping[str, torch.Tensor], names: Collection[str] | None = None
) -> list[Layer]:
    """Importance and alignment of every layer that may be edited, in the model's order.

    A layer without forget gradient (a block that the loss does not reach) is left out.

    Args:
        model: models.Clip.
        forget, retain: {parameter name: gradient}.
        names: only these layers.
    """
    rows = []
    for name, encoder in model.candidates().items():
        if names is not None and name not in names:
            continue
        theta, f, r = (x.detach().double().cpu().flatten() for x in (model.parameters[name], forget[name], retain[name]))
        norm = f.norm()
        if norm == 0 or theta.norm() == 0:
            continue
        alignment = (f @ r / (norm * r.norm())).item() if r.norm() > 0 else 0.0
        # Beyond 12 digits a sum depends on how threads share it.
        rows.append(Layer(name, encoder, round((norm / theta.norm()).item(), 12), round(alignment, 12)))
    return rows


def pareto_front(rows: Iterable[Layer]) -> list[Layer]:
    """The layers that no other layer of `rows` beats: high importance, low |alignment|. Most important first.

    A layer is beaten by one that is at least as good in both figures and better in one.
    """
    front, best = [], math.inf
    for row in sorted(rows, key=lambda r: (-r.importance, abs(r.alignment))):
        if abs(row.alignment) < best:
            front.append(row)
            best = abs(row.alignment)
    return front


def all_fronts(rows: Sequence[Layer]) -> list[list[Layer]]:
    """The Pareto front, then the front of the layers that it leaves, and so on until none is left."""
    found, left = [], list(rows)
    while left:
        found.append(pareto_front(left))
        taken = {id(r) for r in found[-1]}
        left = [r for r in left if id(r) not in taken]
    return found


def fronts(rows: Sequence[Layer], count: int = 1) -> dict[str, list[Layer]]:
    """{"vision": layers, "language": layers}: the first `count` Pareto fronts of each encoder by itself."""
    found = {e: all_fronts([r for r in rows if r.encoder == e])[:count] for e in ("vision", "language")}
    return {e: [r for front in parts for r in front] for e, parts in found.items()}


def groups(model: Any, front: Iterable[Layer], *, alone: bool, together: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, parameters that move together) of what is searched.

    Args:
        alone: also every member of a group (q, k, v; fc1, fc2) by itself.
        together: all layers at once instead.
    """
    if together:
        yield TOGETHER, tuple(dict.fromkeys(n for layer in front for n in model.group(layer.name)))
        return
    for layer in front:
        for end in ("", ALONE) if alone else ("",):
            yield layer.name + end, model.group(layer.name + end)


def depth_order(model: Any, name: str) -> tuple[float, bool, int]:
    """A key by which parameters sort from shallow to deep, for the paper's rule "the deepest layer of the front".

    The stage of its tower that reads a parameter, as a fraction of all of the tower's stages, then its place in the model:
    towers may differ in length, and a model may list its projections first.
    """
    parameter, stages = model.parameters[name], model.stages(model.tower(name))
    depth = model.stage(name) / max(1, len(stages) - 1)
    return depth, depth == 1 and parameter.ndim > 1, list(model.parameters).index(name)  # the projection after its norm


def first_step(theta: Iterable[torch.Tensor], grads: Iterable[torch.Tensor]) -> float:
    """lambda_0 = ||theta|| / (10 ||grad||): a 10% relative change. For a group of tensors, the norms of the group."""

    def norm(tensors: Iterable[torch.Tensor]) -> float:
        total: Any = sum(t.detach().double().square().sum() for t in tensors)
        return torch.sqrt(total).item()  # not math.sqrt, whose last bit may differ: records keep the step

    return norm(theta) / (10 * norm(grads))
