"""SSD: dampen the weights that matter much more to the forget set than to the retain set, without training (Foster et al.,
AAAI 2024).

Importances are mean squared gradients of the batches (core.gradients.compute with square=True).
"""

from slug.methods import CLIP, Method, register_forms

SELECTION, EXPONENT, LOWER_BOUND = 10.0, 1.0, 1.0
COUNT = 10


def dampenings():
    """The dampening constants, a candidate each."""
    import torch

    return torch.linspace(0.1, 5, COUNT, dtype=torch.float64).tolist()


def dampen(weight, forget, retain, dampening, *, selection=SELECTION, exponent=EXPONENT, bound=LOWER_BOUND):
    """The dampened copy of one tensor.

    Where forget > selection * retain, the weight is multiplied by min((dampening * retain / forget) ** exponent, bound).
    """
    import torch

    chosen = forget > selection * retain
    factor = (dampening * retain / forget.clamp_min(torch.finfo(forget.dtype).tiny)) ** exponent
    return torch.where(chosen, weight * factor.clamp_max(bound), weight)


def candidates(clip, material, selection):
    """Yield after each dampening (1, 2, ...), every one from the ORIGINAL weights: dampenings do not compound.

    Args:
        selection: the selection weight; the published runs take SELECTION.
    """
    import torch

    base = {n: p.detach().clone() for n, p in clip.parameters.items()}
    forget, retain = material.forget_importance, material.retain_importance
    for number, dampening in enumerate(dampenings(), 1):
        with torch.no_grad():
            for name, p in clip.parameters.items():
                f, r = forget[name].to(p.device), retain[name].to(p.device)
                p.copy_(dampen(base[name], f, r, dampening, selection=selection))
        yield number


CITED = "SSD (Foster et al., AAAI 2024): selective synaptic dampening"
register_forms(
    Method(
        "ssd", "SSD", CITED, (CLIP,), 24, candidates, needs=("importance",), setting="selection", count=COUNT, symbol="alpha"
    )
)
