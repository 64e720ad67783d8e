"""SLUG's step in the null space of what a layer reads on the retain set: D = G P for the forget gradient G.

P projects on the eigenvectors of a layer's input moment C on the retain set beyond the first r, r by the cumulative share of
the eigenvalues. It is the hard form of the preconditioned step G (C + c I)^-1 (core.preconditioning), and Projected-Gradient
Unlearning's step (Hoang et al., WACV 2024), after gradient projection memory (Saha et al., ICLR 2021).

The registry's searched methods read their direction from gradient files, which have no share; a baseline over a grid of
relative steps on the layers of the first Pareto fronts asks for no new kind of file.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.core.preconditioning import Found
    from slug.models.clip import Clip

# Of the eigenvalues' sum, which is left alone: shares carry from one layer to another, absolute thresholds do not.
SHARES = (0.9, 0.97, 0.99, 0.999)
LAYERS = 3  # of each encoder
STEPS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)  # relative to the layer's norm


def null_space(moment: "torch.Tensor", share: float) -> "torch.Tensor":
    """P (d, d) of a moment (d, d): the projector on the eigenvectors beyond the fewest that hold `share` of the sum."""
    import torch

    values, vectors = torch.linalg.eigh(moment)  # ascending
    largest = values.clamp_min(0).flip(0)
    first = int((largest.cumsum(0) < share * largest.sum()).sum()) + 1
    left = vectors[:, : max(len(values) - first, 0)]
    return left @ left.T


def projected(gradient: "torch.Tensor", moment: "torch.Tensor", axis: int, share: float) -> "torch.Tensor":
    """D of a gradient whose axis `axis`, flattened to a matrix, meets the inputs."""
    matrix, p = gradient.double().flatten(1).to(moment.device), null_space(moment, share)
    return (matrix @ p if axis else p @ matrix).view_as(gradient).float().cpu()


def directions(gradient: "dict[str, torch.Tensor]", found: "Found", share: float) -> "dict[str, torch.Tensor]":
    """{name: D}, of the matrices that have a moment."""
    return gradient | {n: projected(gradient[n], moment, axis, share) for n, (moment, axis) in found.items()}


def candidates(clip: "Clip", material: Material, share: float) -> Iterator[int]:
    """Yield the number of each candidate: LAYERS layers of each encoder with STEPS steps each."""
    from slug.core import preconditioning
    from slug.methods import _matrices

    assert material.gradient is not None and material.retain_gradient is not None
    found = preconditioning.moments(clip, material.retain, rows=_matrices.without_name(material))
    along = directions(material.gradient, found, share)
    chosen = _matrices.front(clip, along, material.retain_gradient, found, LAYERS)
    yield from _matrices.along_layers(clip, chosen, along, STEPS)


CITED = "SLUG's step in the null space of the retain set's layer inputs (as Hoang et al., WACV 2024)"
register(
    Method(
        "slug_null",
        "SLUG in the null space",
        CITED,
        (CLIP,),
        51,
        candidates,
        needs=("gradient", "retain"),
        grid=SHARES,
        symbol="share",
        grows=False,
        count=2 * LAYERS * len(STEPS),
        asked=True,
    )
)
