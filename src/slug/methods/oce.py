"""OCE: keys and values of the UNet's cross-attention turned by an orthogonal matrix (Sun et al., ICML 2026).

Every projection W becomes R W. R is the orthogonal matrix that brings the texts of the forgotten concept closest to where W
maps the same texts without it and moves the others least: R = U V^T from the singular value decomposition U S V^T of
W (a C* C^T + C0 C0^T) W^T, with token states as columns, C of the concept's prompts, C* of the same without it, C0 of the
others. R may be a reflection: its determinant is not corrected.

This follows the paper's description for one concept; the weight a is searched as UCE's is.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slug.methods import PIPELINE, Method, PipelineMaterial, register
from slug.methods._closed_forms import projections, texts

if TYPE_CHECKING:
    from torch import Tensor

    from slug.core.edit import Edit

TIE = 1e-6  # weight of W itself, as a multiple of the mean square of states: what no text reads does not turn


def turn(w: "Tensor", to: "Tensor") -> "Tensor":
    """R (out, out) for a projection w (out, W) and the weighted sum `to` (W, W) of where texts are to go."""
    import torch

    u, _, vh = torch.linalg.svd(w @ to @ w.T)
    return u @ vh


def candidates(pipeline: Any, material: PipelineMaterial, weight: float) -> "Iterator[Edit]":
    """Yield the edit for one weight a of the forgotten concept.

    Args:
        pipeline: models.diffusion.Diffusion.
    """
    import torch

    from slug.core.edit import Edit

    with torch.no_grad():
        c, target, kept = texts(pipeline, material)
        eye = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
        stay = kept.T @ kept / len(material.others) + TIE * kept.square().mean() * eye
        to = weight * target.T @ c / len(material.own) + stay
        weights = {n: pipeline.tensors[n].double() for n in projections(pipeline)}
        changes = {n: (turn(w, to) @ w - w).float() for n, w in weights.items()}
    yield Edit(changes, f"weight {weight:g}", 1.0)


CITED = "OCE (Sun et al.; ICML 2026), after the paper's description: the cross-attention turned by an orthogonal matrix"
GRID = (0.1, 0.32, 1, 3.2, 10, 32)
register(Method("oce", "OCE", CITED, (PIPELINE,), 44, candidates, setting="weight", grid=GRID))
