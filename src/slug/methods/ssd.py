"""SSD: dampen the weights that matter much more to the forget set than to the retain set; no training.

Importances are mean squared per-batch gradients (gradients.compute with square=True).
"""

import torch

NEEDS = ("forget_importance", "retain_importance")
TRAINS = False
SELECTION, EXPONENT, LOWER_BOUND = 10.0, 1.0, 1.0
DAMPENINGS = tuple(torch.linspace(0.1, 5, 10, dtype=torch.float64).tolist())


def dampen(weight, forget, retain, dampening, *, selection=SELECTION, exponent=EXPONENT, bound=LOWER_BOUND):
    """The dampened copy of one tensor.

    Where forget > selection * retain, the weight is multiplied by min((dampening * retain / forget) ** exponent, bound).
    """
    chosen = forget > selection * retain
    factor = (dampening * retain / forget.clamp_min(torch.finfo(forget.dtype).tiny)) ** exponent
    return torch.where(chosen, weight * factor.clamp_max(bound), weight)


@torch.no_grad()
def candidates(clip, material, selection):
    """Yield after each of DAMPENINGS (1, 2, ...), every one from the ORIGINAL weights (trap 6).

    Args:
        selection: the selection weight; the published runs take SELECTION.
    """
    base = {n: p.detach().clone() for n, p in clip.parameters.items()}
    forget, retain = material.forget_importance, material.retain_importance
    for number, dampening in enumerate(DAMPENINGS, 1):
        for name, p in clip.parameters.items():
            f, r = forget[name].to(p.device), retain[name].to(p.device)
            p.copy_(dampen(base[name], f, r, dampening, selection=selection))
        yield number
