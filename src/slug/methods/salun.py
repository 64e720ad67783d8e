"""SalUn: GAFT on the half of all weights with the largest forget gradients; the others stay the same (Fan et al., 2024)."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, gaft, register_forms

if TYPE_CHECKING:
    import torch

    from slug.methods._training import Schedule
    from slug.models.clip import Clip

SHARE = 0.5  # of all weights


def mask(gradient: "Mapping[str, torch.Tensor]", share: float = SHARE) -> "dict[str, torch.Tensor]":
    """{name: bool tensor}: true for the fraction `share` of all elements of all tensors that has the largest |gradient|.

    Of elements with the same |gradient| (0 where the loss does not reach a weight) the first ones are taken.
    """
    import torch

    sizes = [g.numel() for g in gradient.values()]
    flat = torch.cat([g.detach().abs().flatten() for g in gradient.values()])
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    return {n: part.view(g.shape) for (n, g), part in zip(gradient.items(), chosen.split(sizes), strict=True)}


def candidates(clip: "Clip", material: Material, schedule: "Schedule") -> Iterator[int]:
    """Train; yields the number of each finished epoch."""
    from slug.methods._training import train

    assert material.gradient is not None
    inside = {n: m.to(clip.device) for n, m in mask(material.gradient).items()}
    yield from train(clip, gaft.passes(material), schedule, inside)


CITED = "SalUn (Fan et al., ICLR 2024): gradient ascent and fine-tuning of the salient weights"
register_forms(Method("salun", "SalUn", CITED, (CLIP,), 23, candidates, needs=("gradient",), setting="lr", trains=True))
