"""UCE: keys and values of the UNet's cross-attention, solved for in closed form (Gandikota et al., WACV 2024).

Every projection W becomes the least-squares solution that maps the texts of the forgotten concept to where W maps the same
texts without it, leaves the other texts where they are, and stays near W:
W' = (a sum W c* c^T + sum W p p^T + l W) (a sum c c^T + sum p p^T + l I)^-1, over the token states c, c* and p of the
prompts.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slug.methods import PIPELINE, Method, PipelineMaterial, register
from slug.methods._closed_forms import projections, texts

if TYPE_CHECKING:
    from torch import Tensor

    from slug.core.edit import Edit

KEEP = 0.1  # l: the weight of W itself
GRID = (0.1, 0.32, 1, 3.2, 10, 32)


def move(c: "Tensor", target: "Tensor", kept: "Tensor", material: PipelineMaterial, weight: float) -> "Tensor":
    """The matrix (W, W) by which every projection moves: W' = W (I + move).

    Args:
        c, target, kept: token states, one a row, as _closed_forms.texts returns them.
        weight: a.
    """
    import torch

    # Means, so that the weights mean the same for any number of prompts.
    to, of = target.T @ c / len(material.own), c.T @ c / len(material.own)
    stay = kept.T @ kept / len(material.others)
    eye = torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    inverse = torch.linalg.inv(weight * of + stay + KEEP * eye)
    return (weight * to + stay + KEEP * eye) @ inverse - eye


def candidates(pipeline: Any, material: PipelineMaterial, weight: float) -> "Iterator[Edit]":
    """Yield the edit for one weight a of the forgotten concept.

    Args:
        pipeline: models.diffusion.Diffusion.
    """
    import torch

    from slug.core.edit import Edit

    with torch.no_grad():
        moved = move(*texts(pipeline, material), material, weight)
        changes = {n: (pipeline.tensors[n].double() @ moved).float() for n in projections(pipeline)}
    yield Edit(changes, f"weight {weight:g}", 1.0)


CITED = "UCE (Gandikota et al.; WACV 2024), the cross-attention solved in closed form"
register(Method("uce", "UCE", CITED, (PIPELINE,), 40, candidates, setting="weight", grid=GRID))
