"""TSA: a low-rank update of the text projection sends the bare name to the empty prompt (Kravets and Namboodiri, TMLR 2025).

With h the final hidden state at the end token of a bare name, W the projection and e_0 the unit embedding of the empty
prompt, l_f |e_0 - W h_f| + l_p |W h_r - W_0 h_r| + |B A| is minimised over B and A of rank 5, W = W_0 + B A; the middle
term is the mean over the retained names.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.models.clip import Clip

FORGET = (1.0, 1.3)  # l_f
RETAIN = (0.25, 0.4)  # l_p: both within a setting, one after the other
RANK, LR, ADAM_STEPS = 5, 0.01, 2000
EVERY = 200  # optimiser steps between two candidates


def loss(
    change: "torch.Tensor",
    w: "torch.Tensor",
    own: "torch.Tensor",
    kept: "torch.Tensor",
    empty: "torch.Tensor",
    weights: tuple[float, float],
) -> "torch.Tensor":
    """The loss of a change B A (D, width) of W_0 (D, width).

    Args:
        own, kept: hidden states (width,) of the name and (K, width) of the retained names.
        empty: e_0 (D,).
        weights: l_f and l_p.
    """
    forget, retain = weights
    moved = (kept @ change.T).norm(dim=1).mean()
    return forget * (empty - (w + change) @ own).norm() + retain * moved + change.norm()


def hidden(clip: "Clip", texts: list[str]) -> "torch.Tensor":
    """Final hidden states (N, width) at the end tokens of texts: what the text projection reads."""
    from slug.methods import _matrices

    name, _ = _matrices.projection(clip, "language")
    with _matrices.Inputs({name: clip.parameters[name]}) as seen:
        _matrices.encoded(clip, texts)
    return seen.found[name][0].clone()


def candidates(clip: "Clip", material: Material, forget: float) -> Iterator[int]:
    """Yield a number after every EVERY steps, for each l_p.

    Args:
        forget: l_f.
    """
    import torch

    from slug.methods import _matrices

    name, axis = _matrices.projection(clip, "language")
    parameter, number = clip.parameters[name], 0
    w = (parameter.T if axis else parameter).detach().clone()
    states = hidden(clip, [material.name, *_matrices.kept_names(material)])
    empty = _matrices.encoded(clip, [""])[0]
    for retain in RETAIN:
        # As LoRA begins: B A is 0 and its gradient is not.
        a = torch.randn(RANK, w.shape[1], generator=torch.Generator().manual_seed(0)).to(w.device) / w.shape[1] ** 0.5
        b = torch.zeros(len(w), RANK, device=w.device)
        optimizer = torch.optim.Adam([a.requires_grad_(True), b.requires_grad_(True)], lr=LR)
        for step in range(1, ADAM_STEPS + 1):
            with torch.enable_grad():
                optimizer.zero_grad()
                loss(b @ a, w, states[0], states[1:], empty, (forget, retain)).backward()
            optimizer.step()
            if step % EVERY == 0:
                with torch.no_grad():
                    new = w + b @ a
                    parameter.copy_(new.T if axis else new)
                number += 1
                yield number


CITED = "TSA (Kravets and Namboodiri, TMLR 2025): the text projection sends the name to the empty prompt"
register(
    Method(
        "tsa",
        "TSA",
        CITED,
        (CLIP,),
        53,
        candidates,
        grid=FORGET,
        symbol="forget weight",
        count=len(RETAIN) * ADAM_STEPS // EVERY,
        asked=True,
    )
)
