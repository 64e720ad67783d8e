"""Kodge et al.: take the forget set's directions, but for those of the retain set, out of what layers read.

W' = W (I - M_f + M_f M_r)^T with M = U diag(a l / ((a - 1) l + 1)) U^T over the eigenvectors U of a layer's input moment
and its eigenvalues l over their sum (arXiv 2312.00761). No gradient is needed. Layers are changed one after the other, each
by the inputs that the layers changed before it give.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.core.preconditioning import Found
    from slug.models.clip import Clip

FORGET = (1.0, 3.0, 10.0, 30.0, 100.0)  # a_f
RETAIN = 100.0  # a_r
SAMPLES = 999  # pairs of a set, at most
BATCH = 64
TOWERS = (("vision",), ("language",), ("vision", "language"))
BEGINNINGS = 3  # the whole tower, its second half, its last block and its projection

Batches = list[tuple[Any, Any]]  # tensors (what enters a stage, what entered the tower)


def scaled(moment: "torch.Tensor", a: float) -> "torch.Tensor":
    """M (d, d) of a moment (d, d)."""
    import torch

    values, vectors = torch.linalg.eigh(moment)
    share = values.clamp_min(0) / values.clamp_min(0).sum()
    return vectors * (a * share / ((a - 1) * share + 1)) @ vectors.T


def changed(weight: "torch.Tensor", forget: "torch.Tensor", retain: "torch.Tensor", axis: int, a: float) -> "torch.Tensor":
    """W' of a weight whose axis `axis`, flattened to a matrix, meets inputs with these moments."""
    import torch

    m_f, m_r = scaled(forget, a), scaled(retain, RETAIN)
    keep = torch.eye(len(m_f), dtype=m_f.dtype, device=m_f.device) - m_f + m_f @ m_r
    matrix = weight.detach().double().flatten(1)
    return (matrix @ keep.T if axis else keep @ matrix).view_as(weight).to(weight.dtype)


def entering(clip: "Clip", encoder: str, pairs: Any) -> Batches:
    """What enters the first stage of a tower; texts of one length together, so that none is padded."""
    if encoder == "vision":
        return [(images, images) for images in pairs.images[:SAMPLES].split(BATCH)]
    tokens = clip.tokenize(pairs.captions[:SAMPLES]).to(clip.device)
    lengths = clip.text_lengths(tokens)
    parts = [part for n in lengths.unique() for part in tokens[lengths == n][:, : int(n)].split(BATCH)]
    return [(part, part) for part in parts]


def sweep(clip: "Clip", encoder: str, sets: Sequence[Any], a: float, first: int) -> None:
    """Change the matrices of a tower from stage `first` on, in the order in which they are read.

    Args:
        sets: the forget and the retain pairs.
    """
    import torch

    from slug.core.preconditioning import Moments

    sides = [entering(clip, encoder, pairs) for pairs in sets]
    for place, stage in enumerate(clip.stages(encoder)):
        of_stage = {n: p for n, p in clip.parameters.items() if clip.tower(n) == encoder and clip.stage(n) == place}

        def read(batches: Batches) -> "Found":
            with Moments(of_stage) as seen:  # noqa: B023
                for x, inputs in batches:
                    stage(x, inputs)  # noqa: B023
            return seen.found

        done: set[str] = set()
        with torch.no_grad():
            while place >= first:
                forget, retain = map(read, sides)
                name = next((n for n in forget if n not in done), None)
                if name is None:
                    break
                (own, axis), (kept, _) = forget[name], retain[name]
                of_stage[name].copy_(changed(of_stage[name], own, kept, axis, a))
                done.add(name)
            sides = [[(stage(x, inputs), inputs) for x, inputs in batches] for batches in sides]


def candidates(clip: "Clip", material: Material, a: float) -> Iterator[int]:
    """Yield the number of each candidate: for each beginning each tower, then both.

    Args:
        a: a_f.
    """
    from slug.data.pairs import some
    from slug.methods import _matrices

    base, number = _matrices.originals(clip), 0
    sets = material.forget, some(material.retain, _matrices.without_name(material)[:SAMPLES])
    for beginning in range(BEGINNINGS):
        _matrices.restore(clip, base)
        for encoder in ("vision", "language"):
            stages = len(clip.stages(encoder))
            sweep(clip, encoder, sets, a, max((0, stages // 2, stages - 2)[beginning], 0))
        both = _matrices.originals(clip)
        for towers in TOWERS:
            _matrices.restore(clip, {n: (both if clip.tower(n) in towers else base)[n] for n in base})
            number += 1
            yield number


CITED = "Kodge et al. (arXiv 2312.00761): the forget set's directions projected out of the layers' inputs"
register(
    Method(
        "kodge",
        "Kodge et al.",
        CITED,
        (CLIP,),
        52,
        candidates,
        grid=FORGET,
        symbol="alpha",
        count=BEGINNINGS * len(TOWERS),
        asked=True,
    )
)
