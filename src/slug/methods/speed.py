"""SPEED: an edit of the values in the null space of what is retained (Li et al., 2025, arXiv 2503.07392).

With token states as columns, C of the concept's prompts, C* of the same without it, C0 of the other prompts and C2 of the
empty one, each value projection W changes by W (C* C^T - C C^T) P Q M, where P projects on the eigenvectors of the mean of
C0 C0^T whose eigenvalues lie below a threshold, M = (C C^T P + r I)^-1 and Q = I - M C2 (C2^T P M C2)^-1 C2^T P: W maps what
lies in the span of C0, and C2, to where it did. C0 holds the states that an edit without P would move most, and copies of
them with noise in the direction that W reads least.

This follows the paper's description. Published constants are for states whose entries have mean square 1; here threshold and
r are multiples of that mean square. All tokens are read, as by the other closed forms here.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slug.methods import PIPELINE, Method, PipelineMaterial, register
from slug.methods._closed_forms import VALUES, projections, texts

if TYPE_CHECKING:
    from torch import Tensor

    from slug.core.edit import Edit

RIDGE, RIDGE_OF_MANY = 1.0, 0.05  # r
COPIES = 10  # with noise, of every retained state
CENTRES = 3  # of the empty prompt's states behind its first one


def influential(kept: "Tensor", moved: "Tensor") -> "Tensor":
    """The states (N, W) that a change `moved` (out, W) moves by more than the mean; all, where it moves all alike."""
    size = (kept @ moved.T).norm(dim=1)
    return kept[size > size.mean()] if (size > size.mean()).any() else kept


def refined(kept: "Tensor", w: "Tensor", c: "Tensor", target: "Tensor", seed: int) -> "Tensor":
    """C0, one state a row: the influential ones of `kept`, and the influential ones of their noisy copies."""
    import torch

    unit = kept.square().mean()
    eye = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
    moved = w @ (target.T @ c - c.T @ c) @ torch.linalg.inv(unit * eye + c.T @ c)
    kept = influential(kept, moved)
    least = torch.linalg.svd(w)[2][-1]  # the direction that W reads least
    noise = torch.randn(COPIES * len(kept), 1, generator=torch.Generator().manual_seed(seed), dtype=kept.dtype)
    copies = kept.repeat(COPIES, 1) + unit.sqrt() * noise.to(kept.device) * least
    return torch.cat([kept, influential(copies, moved)])


def projector(kept: "Tensor", threshold: float) -> "Tensor":
    """P (W, W) of states (N, W); the threshold is a multiple of the mean eigenvalue."""
    import torch

    values, vectors = torch.linalg.eigh(kept.T @ kept / len(kept))
    free = vectors[:, values < threshold * values.mean()]
    return free @ free.T


def change(w: "Tensor", c: "Tensor", target: "Tensor", still: "Tensor", p: "Tensor", ridge: float) -> "Tensor":
    """The change (out, W) of a projection w.

    Args:
        c, target: states (N, W) that are moved, and where to.
        still: C2, states (K, W) that stay where they are.
        p: P.
    """
    import torch

    of, to = c.T @ c, target.T @ c
    eye = torch.eye(len(p), dtype=p.dtype, device=p.device)
    m = torch.linalg.inv(of @ p + ridge * eye)
    reached = still @ p @ m @ still.T
    # States that P leaves nothing of stay as it is; their part of the matrix is rounding and has no inverse.
    none = 1e-10 * still.square().sum().item() / ridge
    q = eye - m @ still.T @ torch.linalg.pinv(reached, atol=none, rtol=1e-12) @ still @ p
    return w @ (to - of) @ p @ q @ m


def centres(rows: "Tensor", count: int) -> "Tensor":
    """k-means centres (count, W) of rows, from the first row and those farthest from all before."""
    import torch

    found = rows[:1]
    for _ in range(min(count, len(rows)) - 1):
        found = torch.cat([found, rows[torch.cdist(rows, found).amin(1).argmax()][None]])
    for _ in range(100):
        nearest = torch.cdist(rows, found).argmin(1)
        moved = torch.stack([rows[nearest == k].mean(0) if (nearest == k).any() else found[k] for k in range(len(found))])
        if torch.equal(moved, found):
            break
        found = moved
    return found


def candidates(
    pipeline: Any, material: PipelineMaterial, threshold: float, ridge: float = RIDGE, count: int = 1
) -> "Iterator[Edit]":
    """Yield the edit for one threshold of eigenvalues.

    Args:
        pipeline: models.diffusion.Diffusion.
        ridge: r.
        count: of concepts among the prompts of `material`.
    """
    import torch

    from slug.core.edit import Edit

    with torch.no_grad():
        c, target, others = texts(pipeline, material)
        # Sums over a concept's prompts become means.
        c, target = (rows / (len(material.own) / count) ** 0.5 for rows in (c, target))
        others = others.unique(dim=0)  # prompts begin alike
        empty = pipeline.embed([""])[0].double()
        still = torch.cat([empty[:1], centres(empty[1:], CENTRES)])
        ridge, changes = ridge * others.square().mean().item(), {}
        for name in projections(pipeline, (VALUES,)):
            w = pipeline.tensors[name].double()
            p = projector(refined(others, w, c, target, material.seed), threshold)
            changes[name] = change(w, c, target, still, p, ridge).float()
    yield Edit(changes, f"threshold {threshold:g}", 1.0)


def several(pipeline: Any, material: PipelineMaterial, threshold: float) -> "Iterator[Edit]":
    """As `candidates`, for several concepts: with the published r, and with the smaller one that is published for many."""
    for ridge in (RIDGE, RIDGE_OF_MANY):
        for edit in candidates(pipeline, material, threshold, ridge, len({*material.concepts})):
            yield replace(edit, layer=f"{edit.layer}, ridge {ridge:g}")


CITED = "SPEED (Li et al.; 2025), after the paper's description: the values edited in the null space of what is retained"
GRID = (1e-4, 1e-3, 1e-2, 1e-1)
SPEED = Method("speed", "SPEED", CITED, (PIPELINE,), 43, candidates, setting="threshold", grid=GRID, several=several)
register(SPEED)
