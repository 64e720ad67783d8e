"""SSD: dampen the weights that matter much more to the forget set than to the retain set, without training.

Source: Foster et al., AAAI 2024. Importances are mean squared gradients of the batches (core.gradients, square=True).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register_forms

if TYPE_CHECKING:
    import torch

    from slug.models.clip import Clip

SELECTION, EXPONENT, LOWER_BOUND = 10.0, 1.0, 1.0
COUNT = 10


def dampenings() -> list[float]:
    """The dampening constants; each is a candidate."""
    import torch

    return torch.linspace(0.1, 5, COUNT, dtype=torch.float64).tolist()


def dampen(
    weight: "torch.Tensor",
    forget: "torch.Tensor",
    retain: "torch.Tensor",
    dampening: float,
    *,
    selection: float = SELECTION,
    exponent: float = EXPONENT,
    bound: float = LOWER_BOUND,
) -> "torch.Tensor":
    """A dampened copy of one tensor.

    Where forget > selection * retain, the weight is multiplied by min((dampening * retain / forget) ** exponent, bound).

    Args:
        weight, forget, retain: the values and their importances, of one shape.
    """
    import torch

    chosen = forget > selection * retain
    factor = (dampening * retain / forget.clamp_min(torch.finfo(forget.dtype).tiny)) ** exponent
    return torch.where(chosen, weight * factor.clamp_max(bound), weight)


def candidates(clip: "Clip", material: Material, selection: float) -> Iterator[int]:
    """Dampen; yields the number (1, 2, ...) of each dampening. Each starts from the ORIGINAL weights, or, as published, from
    what the one before left.

    Args:
        selection: the selection weight; the published runs take SELECTION.
    """
    import torch

    base = {n: p.detach().clone() for n, p in clip.parameters.items()}
    forget, retain = material.forget_importance, material.retain_importance
    assert forget is not None and retain is not None
    for number, dampening in enumerate(dampenings(), 1):
        with torch.no_grad():
            for name, p in clip.parameters.items():
                f, r = forget[name].to(p.device), retain[name].to(p.device)
                start = p if material.protocol.ssd_compounds else base[name]
                p.copy_(dampen(start, f, r, dampening, selection=selection))
        yield number


CITED = "SSD (Foster et al., AAAI 2024): selective synaptic dampening"
register_forms(
    Method(
        "ssd", "SSD", CITED, (CLIP,), 24, candidates, needs=("importance",), setting="selection", count=COUNT, symbol="alpha"
    )
)
