"""NeST: SLUG's one step with a weight for every row of a matrix.

Row i, an output of the layer, moves by w_i times its forget gradient, w_i = clamp((1 - max(0, cos_i)) / (eps + R_i), 0.1,
10): cos_i is between the row's step and its retain gradient, R_i the norm of the row of the retain gradient over the mean
norm of the layer's rows.

A baseline over a grid of relative steps on the layers of the first Pareto fronts, for the reason that slug_null.py gives.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.models.clip import Clip

EPS, LEAST, MOST = 1e-6, 0.1, 10.0
LAYERS = 3  # of each encoder
STEPS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)  # relative to the layer's norm


def row_weights(forget: "torch.Tensor", retain: "torch.Tensor") -> "torch.Tensor":
    """w (out,) for gradients (out, in)."""
    import torch.nn.functional as F

    norms = retain.norm(dim=1)
    relative = norms / norms.mean().clamp_min(EPS)
    aligned = F.cosine_similarity(forget, retain, dim=1).clamp_min(0)
    return ((1 - aligned) / (EPS + relative)).clamp(LEAST, MOST)


def direction(forget: "torch.Tensor", retain: "torch.Tensor", axis: int) -> "torch.Tensor":
    """The forget gradient of a matrix with its rows weighted; `axis` of the matrix is that of its outputs."""
    f, r = (g.double().flatten(1).movedim(axis, 0) for g in (forget, retain))
    return (row_weights(f, r)[:, None] * f).movedim(0, axis).reshape(forget.shape).float()


def candidates(clip: "Clip", material: Material, relative: float) -> Iterator[int]:
    """Yield the number of each candidate: LAYERS layers of each encoder.

    Args:
        relative: step over the layer's norm.
    """
    from slug.methods import _matrices

    forget, retain = material.gradient, material.retain_gradient
    assert forget is not None and retain is not None
    matrices = [n for n, p in clip.parameters.items() if p.ndim > 1]
    chosen = _matrices.front(clip, forget, retain, matrices, LAYERS)
    moved = {n for layer in chosen for n in clip.group(layer)}
    along = {n: direction(forget[n], retain[n], _matrices.output_axis(n)) for n in moved}
    yield from _matrices.along_layers(clip, chosen, along, (relative,))


CITED = "NeST, the weighted rows of a public fork of SLUG: one step on one layer"
register(
    Method(
        "nest",
        "NeST",
        CITED,
        (CLIP,),
        57,
        candidates,
        needs=("gradient", "retain"),
        grid=STEPS,
        symbol="step",
        count=2 * LAYERS,
        asked=True,
    )
)
