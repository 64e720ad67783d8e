"""CCUP: project the name's direction out of the embeddings of pictures, without data (arXiv 2512.14137).

U is an orthonormal basis of the unit embeddings of the name's prompts, and the vision tower's projection becomes
proj (I - a U U^T): at a = 1 the cosine of every picture with each of these prompts is 0. The variant with retained names
takes I - a (I - P) instead, P = (R + l I) (F + R + l I)^-1 with F and R the means of t t^T over the embeddings t of the
name's and of the retained names' prompts: the least-squares solution that sends the former to 0 and leaves the latter. Sums
would give hundreds of names the weight to keep the one.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.models.clip import Clip

STRENGTHS = tuple(round(0.1 * k, 1) for k in range(1, 11))  # a: beyond 1 the name's direction would come back, reversed
RIDGES = (0.001, 0.01, 0.1, 1.0)  # l of the variant with retained names: a candidate each, after that without them


def projector(own: "torch.Tensor") -> "torch.Tensor":
    """I - U U^T (D, D) for prompts (N, D): what is left of an embedding."""
    import torch

    u, _ = torch.linalg.qr(own.T.double())
    return torch.eye(len(u), dtype=torch.float64, device=u.device) - u @ u.T


def sparing(own: "torch.Tensor", kept: "torch.Tensor", ridge: float) -> "torch.Tensor":
    """P (D, D) for prompts of the name (N, D) and of the retained names (K, D)."""
    import torch

    f, r = (t.double().T @ t.double() / len(t) for t in (own, kept))
    r = r + ridge * torch.eye(len(r), dtype=torch.float64, device=r.device)
    return torch.linalg.solve(f + r, r).T  # both are symmetric


def candidates(clip: "Clip", material: Material, strength: float) -> Iterator[int]:
    """Yield the number of each candidate: without retained names, then for each ridge.

    Args:
        strength: a.
    """
    import torch

    from slug.methods import _matrices

    name, axis = _matrices.projection(clip, "vision")
    parameter = clip.parameters[name]
    base = parameter.detach().double()
    own = _matrices.encoded(clip, _matrices.prompts([material.name]))
    kept = _matrices.encoded(clip, _matrices.prompts(_matrices.kept_names(material)))
    for number, left in enumerate([projector(own), *(sparing(own, kept, ridge) for ridge in RIDGES)], 1):
        change = strength * (left - torch.eye(len(left), dtype=left.dtype, device=left.device))
        with torch.no_grad():
            parameter.copy_(base + (base @ change.T if axis else change @ base))
        yield number


CITED = "CCUP (arXiv 2512.14137), after the paper's description: the name projected out of the embeddings of pictures"
register(
    Method(
        "ccup",
        "CCUP",
        CITED,
        (CLIP,),
        50,
        candidates,
        grid=STRENGTHS,
        symbol="strength",
        grows=False,
        count=1 + len(RIDGES),
        asked=True,
    )
)
