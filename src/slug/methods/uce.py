"""UCE: the keys and values of the UNet's cross-attention, solved for in closed form (Gandikota et al., WACV 2024).

Every projection W becomes the least-squares solution that sends the texts of the forgotten concept where W sends the same
texts without it, leaves the other texts where they are, and stays near W:
W' = (a sum W c* c^T + sum W p p^T + l W) (a sum c c^T + sum p p^T + l I)^-1, over the token states c, c* and p of the
prompts.
"""

import torch

from slug.models.diffusion import UNET

KEEP = 0.1  # l: how much W itself weighs


def projections(diffusion):
    """Names of the UNet's parameters that read texts."""
    ends = ("attn2.to_k.weight", "attn2.to_v.weight")
    return [n for n in diffusion.tensors if n.startswith(UNET) and n.endswith(ends)]


@torch.no_grad()
def candidates(diffusion, own, neutral, others, weights):
    """Yield (label, number, edit) for each weight of the forgotten concept.

    Args:
        own, neutral: N prompts of the concept, and what each is to become.
        others: prompts that are to stay.
        weights: [a].
    """
    c, target, kept = (diffusion.embed(p).flatten(0, 1).double() for p in (own, neutral, others))
    # Means, so that the weights mean the same for any number of prompts.
    to, of = target.T @ c / len(own), c.T @ c / len(own)
    stay = kept.T @ kept / len(others)
    eye = torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    for a in weights:
        inverse = torch.linalg.inv(a * of + stay + KEEP * eye)
        move = (a * to + stay + KEEP * eye) @ inverse - eye  # W' = W (I + move)
        edit = {n: (diffusion.tensors[n].double() @ move).float() for n in projections(diffusion)}
        yield f"weight {a:g}", 1, edit
