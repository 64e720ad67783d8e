"""SalUn: GAFT on the half of all weights whose forget gradient is largest; the other half keeps its values (Fan et al.,
2024)."""

from slug.methods import CLIP, Method, gaft, register_forms

SHARE = 0.5  # of all weights


def mask(gradient, share=SHARE):
    """{name: bool tensor}: the `share` of all elements with the largest |gradient|, over all tensors together.

    Where many elements tie at the edge (weights that the loss does not reach have gradient 0), the first ones are taken.
    """
    import torch

    sizes = [g.numel() for g in gradient.values()]
    flat = torch.cat([g.detach().abs().flatten() for g in gradient.values()])
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    return {n: part.view(g.shape) for (n, g), part in zip(gradient.items(), chosen.split(sizes), strict=True)}


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    from slug.methods._training import train

    inside = {n: m.to(clip.device) for n, m in mask(material.gradient).items()}
    yield from train(clip, gaft.passes(material), schedule, inside)


CITED = "SalUn (Fan et al., ICLR 2024): gradient ascent and fine-tuning of the salient weights"
register_forms(Method("salun", "SalUn", CITED, (CLIP,), 23, candidates, needs=("gradient",), setting="lr", trains=True))
