"""SalUn: GAFT on the half of all weights whose forget gradient is largest; the other half keeps its values."""

import torch

from slug.methods import gaft
from slug.methods.training import train

NEEDS = ("gradient",)
TRAINS = True
SHARE = 0.5  # of all weights


def mask(gradient, share=SHARE):
    """{name: bool tensor}: the `share` of all elements with the largest |gradient|, over all tensors together.

    Where many elements tie at the edge (weights the loss does not reach have gradient 0), those come out that stand first.
    """
    sizes = [g.numel() for g in gradient.values()]
    flat = torch.cat([g.detach().abs().flatten() for g in gradient.values()])
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    return {n: part.view(g.shape) for (n, g), part in zip(gradient.items(), chosen.split(sizes), strict=True)}


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    inside = {n: m.to(clip.device) for n, m in mask(material.gradient).items()}
    yield from train(clip, gaft.passes(material), schedule, inside)
