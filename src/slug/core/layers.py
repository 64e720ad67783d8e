"""Which layers to try: importance, alignment and the Pareto front of each encoder (paper, section 3)."""

from typing import NamedTuple

import torch


class Layer(NamedTuple):
    """One named parameter tensor with the two figures it is ranked by."""

    name: str
    encoder: str  # vision or language
    importance: float  # ||grad L_forget||_F / ||theta||_F
    alignment: float  # cos(grad L_forget, grad L_retain), signed; the front is about its absolute value


def figures(clip, forget, retain, names=None):
    """Importance and alignment of every layer that may be edited.

    Args:
        clip: models.Clip.
        forget, retain: {parameter name: gradient}, as gradients.load returns them.
        names: only these layers.
    Returns:
        [Layer], in the model's order. A layer without forget gradient (a block the loss does not reach) is left out.
    """
    rows = []
    for name, encoder in clip.candidates().items():
        if names is not None and name not in names:
            continue
        theta, f, r = (x.detach().double().cpu().flatten() for x in (clip.parameters[name], forget[name], retain[name]))
        norm = f.norm()
        if norm == 0 or theta.norm() == 0:
            continue
        alignment = (f @ r / (norm * r.norm())).item() if r.norm() > 0 else 0.0
        # Beyond 12 digits a sum depends on how threads share it.
        rows.append(Layer(name, encoder, round((norm / theta.norm()).item(), 12), round(alignment, 12)))
    return rows


def pareto_front(rows):
    """The layers that no other layer of `rows` beats: high importance, low |alignment|. Most important first.

    A layer is beaten by one that is at least as good in both figures and better in one.
    """
    front, best = [], float("inf")
    for row in sorted(rows, key=lambda r: (-r.importance, abs(r.alignment))):
        if abs(row.alignment) < best:
            front.append(row)
            best = abs(row.alignment)
    return front


def all_fronts(rows):
    """[[Layer]]: the Pareto front, the front of the layers that it leaves, and so on until none is left."""
    found = []
    while rows:
        found.append(pareto_front(rows))
        taken = {id(r) for r in found[-1]}
        rows = [r for r in rows if id(r) not in taken]
    return found


def fronts(rows, count=1):
    """The front of each encoder apart, or the first `count` of its fronts: {"vision": [Layer], "language": [Layer]}."""
    found = {e: all_fronts([r for r in rows if r.encoder == e])[:count] for e in ("vision", "language")}
    return {e: [r for front in parts for r in front] for e, parts in found.items()}


def depth_order(clip, name):
    """A key by which parameters sort from shallow to deep, for the paper's rule "the deepest layer of the front".

    The stage of its tower that reads a parameter, as a part of all of the tower's stages, then its place in the model:
    towers may differ in length, and a model may list its projections first.
    """
    parameter, stages = clip.parameters[name], clip.stages(clip.tower(name))
    depth = clip.stage(name) / max(1, len(stages) - 1)
    return depth, depth == 1 and parameter.ndim > 1, list(clip.parameters).index(name)  # the projection after its norm


def first_step(theta, grads):
    """lambda_0 = ||theta|| / (10 ||grad||): a 10% relative change. Over a group, the norms of the group.

    Args:
        theta, grads: lists of tensors of one group.
    """

    def norm(tensors):
        return torch.sqrt(sum(t.detach().double().square().sum() for t in tensors)).item()

    return norm(theta) / (10 * norm(grads))
