"""RECE: UCE, then rounds that find texts which still bring the concept back, and erase these too (Gong et al., ECCV 2024).

After an edit W of the projections W0, the token states c of the concept's prompts have substitutes c' that W maps close to
where W0 maps c: c' = (r I + sum W^T W)^-1 (sum W^T W0) c, summed over all edited projections. UCE then maps the c' to where
the prompts without the concept go, starting at W.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slug.methods import PIPELINE, Method, PipelineMaterial, register, uce
from slug.methods._closed_forms import projections, texts

if TYPE_CHECKING:
    from torch import Tensor

    from slug.core.edit import Edit

RIDGES = 1e-1, 1e-3  # r
ROUNDS = 3


def substitutes(weights: "list[Tensor]", edited: "list[Tensor]", c: "Tensor", ridge: float) -> "Tensor":
    """The states c' (N, W) that `edited` projections (out, W) map close to where `weights` map the states c (N, W)."""
    import torch

    eye = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
    gram = sum((w.T @ w for w in edited), ridge * eye)
    cross = sum((w.T @ w0 for w, w0 in zip(edited, weights, strict=True)), 0 * eye)
    return c @ torch.linalg.solve(gram, cross).T


def rounds(pipeline: Any, material: PipelineMaterial, weight: float, ridge: float) -> "Iterator[dict[str, Tensor]]":
    """Yield the changes by UCE, and then those after each round, without end."""
    import torch

    with torch.no_grad():
        c, target, kept = texts(pipeline, material)
        weights = {n: pipeline.tensors[n].double() for n in projections(pipeline)}
        edited, now = dict(weights), c
        while True:
            moved = uce.move(now, target, kept, material, weight)
            edited = {n: w + w @ moved for n, w in edited.items()}
            yield {n: (edited[n] - w).float() for n, w in weights.items()}
            now = substitutes([*weights.values()], [*edited.values()], c, ridge)


def candidates(pipeline: Any, material: PipelineMaterial, weight: float) -> "Iterator[Edit]":
    """Yield the edit after each of ROUNDS rounds, for every one of RIDGES; the step is the number of rounds.

    Args:
        pipeline: models.diffusion.Diffusion.
        weight: of the forgotten concept, as UCE has it.
    """
    from slug.core.edit import Edit

    for ridge in RIDGES:
        for number, changes in zip(range(ROUNDS + 1), rounds(pipeline, material, weight, ridge), strict=False):
            if number:  # UCE itself is another method
                yield Edit(changes, f"weight {weight:g}, ridge {ridge:g}", float(number))


CITED = "RECE (Gong et al.; ECCV 2024), UCE and the erasure of what still brings the concept back"
register(Method("rece", "RECE", CITED, (PIPELINE,), 42, candidates, setting="weight", grid=(0.32, 1, 3.2, 10)))
