"""OCE: keys and values of the UNet's cross-attention turned by an orthogonal matrix (Sun et al., ICML 2026).

Every projection W becomes R W. R is the orthogonal matrix that brings the texts of the forgotten concept closest to where W
maps the same texts without it and moves the others least: R = U V^T from the singular value decomposition U S V^T of
W (a C* C^T + C0 C0^T) W^T, with token states as columns, C of the concept's prompts, C* of the same without it, C0 of the
others. R may be a reflection: its determinant is not corrected.

For several concepts E and E* are orthonormal bases of W C and W C*, one column for each concept, the mean over its
prompts of the state of its name's last token, and in C* of the last word's, and R is that of
-e E E^T (I - E* E*^T) + g W C0 C0^T W^T + k sum (W c)(W c)^T + 10 W W^T, with the c of the concepts' prompts in the sum.

This follows the paper's description; the weights a and e are searched as UCE's is. g and k are the published ones for ten
names, and C0 C0^T is a mean.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from slug.methods import PIPELINE, Method, PipelineMaterial, register
from slug.methods._closed_forms import projections, texts

if TYPE_CHECKING:
    from torch import Tensor

    from slug.core.edit import Edit

OTHERS, HELD, ITSELF = 50.0, 5.0, 10.0  # g, k and the weight of W W^T, as published for ten names with e = 3500
GRID_OF_MANY = (110.0, 350.0, 1100.0, 3500.0, 11000.0, 35000.0)
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


def last_states(pipeline: Any, prompts: "Sequence[str]", names: "Sequence[str]" = ()) -> "Tensor":
    """(N, W) states of the last token of each prompt's words, in double precision: a full stop and the end are no words.

    Args:
        names: words of the prompts; where they are given, the states of the last token of these.
    """
    import torch

    tokenizer = pipeline.pipe.tokenizer
    ends = [p.find(n) + len(n) for p, n in zip(prompts, names, strict=True)] if names else [len(p) for p in prompts]
    begun = [p[:end].rstrip(" .") for p, end in zip(prompts, ends, strict=True)]
    places = [len(tokenizer(p, add_special_tokens=False).input_ids) for p in begun]  # 0 is the start
    states = pipeline.embed(prompts).double()
    return states[torch.arange(len(prompts)), torch.tensor(places).clamp(max=states.shape[1] - 1)]


def several(pipeline: Any, material: PipelineMaterial, weight: float) -> "Iterator[Edit]":
    """Yield the edit for several concepts.

    Args:
        pipeline: models.diffusion.Diffusion.
        weight: e.
    """
    import torch

    from slug.core.edit import Edit

    with torch.no_grad():
        kept = texts(pipeline, material)[2]
        own, neutral = last_states(pipeline, material.own, material.concepts), last_states(pipeline, material.neutral)
        rows = {c: [i for i, shown in enumerate(material.concepts) if shown == c] for c in dict.fromkeys(material.concepts)}
        c, target = (torch.stack([part[i].mean(0) for i in rows.values()]) for part in (own, neutral))
        stay = OTHERS * kept.T @ kept / len(kept) + HELD * c.T @ c
        eye = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
        changes = {}
        for name in projections(pipeline):
            w = pipeline.tensors[name].double()
            e, to = basis(w @ c.T), basis(w @ target.T)
            free = torch.eye(len(w), dtype=w.dtype, device=w.device) - to @ to.T
            wanted = weight * (-e @ e.T @ free) + w @ (stay + ITSELF * eye) @ w.T
            u, _, vh = torch.linalg.svd(wanted)
            changes[name] = (u @ vh @ w - w).float()
    yield Edit(changes, f"weight {weight:g}", 1.0)


def basis(columns: "Tensor") -> "Tensor":
    """(out, K) orthonormal basis of the span of columns (out, N)."""
    import torch

    u, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return u[:, sizes > 1e-6 * sizes[0]]


CITED = "OCE (Sun et al.; ICML 2026), after the paper's description: the cross-attention turned by an orthogonal matrix"
GRID = (0.1, 0.32, 1, 3.2, 10, 32)
OF_MANY: dict[str, Any] = {"several": several, "several_grid": GRID_OF_MANY}
register(Method("oce", "OCE", CITED, (PIPELINE,), 44, candidates, setting="weight", grid=GRID, **OF_MANY))
