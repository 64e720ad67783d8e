"""RAZOR: step on the layers of the best score, away from the forget set and along the retain set (CVPR 2026 Findings).

score(l) = ||g_f|| / ||theta|| (1 - cos(g_f, g_r))^a. A layer moves along l_f g_f - g_r - m (theta - theta_0): up the forget
loss, down the retain loss, and back to the original weights, which matters from the second round on. In rounds one more
layer joins in each, by the score on the weights so far, and all layers chosen so far step again. The paper's constants are
not published: here a = 1 and m = 1. Its binary search of the step is a grid here: candidates never see an evaluation.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.core.layers import Layer
    from slug.models.clip import Clip

EXPONENT, DRIFT = 1.0, 1.0  # a, m
FORGET = (0.32, 1.0, 3.2, 10.0)  # l_f
STEPS = tuple(round(0.01 * 2 ** (k / 2), 4) for k in range(14))  # of the one round, relative to the layer's norm
ROUNDS = 6
ROUND_STEPS = (0.01, 0.03, 0.1, 0.3)  # of each round
ROUND_PAIRS = 256  # retain pairs of the gradients from the second round on


def score(layer: "Layer") -> float:
    """The score of a layer by its importance and alignment."""
    return layer.importance * (1 - layer.alignment) ** EXPONENT


def best_layer(clip: "Clip", forget: dict, retain: dict, taken: "tuple[str, ...]" = ()) -> str:
    """The layer of the highest score that is in no group of `taken`; "" where none is left."""
    from slug.core import layers

    gone = {n for name in taken for n in clip.group(name)}
    rows = [r for r in layers.figures(clip, forget, retain) if r.name not in gone]
    return max(rows, key=score).name if rows else ""


def direction(
    forget: "torch.Tensor", retain: "torch.Tensor", weight: float, drift: "torch.Tensor | float" = 0.0
) -> "torch.Tensor":
    """What a tensor moves along; `drift` is theta - theta_0."""
    return weight * forget - retain - DRIFT * drift


def candidates(clip: "Clip", material: Material, weight: float) -> Iterator[int]:
    """One round: yield the number of each step on the layer of the best score.

    Args:
        weight: l_f.
    """
    from slug.methods import _matrices

    forget, retain = material.gradient, material.retain_gradient
    assert forget is not None and retain is not None
    layer = best_layer(clip, forget, retain)
    along = {n: direction(forget[n], retain[n], weight) for n in clip.group(layer)}
    yield from _matrices.along_layers(clip, [layer], along, STEPS)


def rounds(clip: "Clip", material: Material, weight: float) -> Iterator[int]:
    """ROUNDS rounds: yield a number after each, for each step from the original weights."""
    from slug.core import gradients, losses
    from slug.data.pairs import some
    from slug.methods import _matrices

    base, number = _matrices.originals(clip), 0
    part = some(material.retain, list(range(min(ROUND_PAIRS, len(material.retain.captions)))))
    for relative in ROUND_STEPS:
        _matrices.restore(clip, base)
        forget, retain = material.gradient, material.retain_gradient
        assert forget is not None and retain is not None
        chosen: tuple[str, ...] = ()
        for again in range(ROUNDS):
            if again:
                forget, _ = gradients.compute(clip, material.forget, losses.forget(material.variant), desc="forget gradient")
                retain, _ = gradients.compute(clip, part, losses.contrastive, desc="retain gradient")
            new = best_layer(clip, forget, retain, chosen)
            chosen += (new,) if new else ()
            now = _matrices.originals(clip)
            for layer in chosen:
                drift = {n: (now[n] - base[n]).cpu() for n in clip.group(layer)}
                along = {n: direction(forget[n], retain[n], weight, moved) for n, moved in drift.items()}
                _matrices.step(clip, now, layer, along, relative)
            number += 1
            yield number


CITED = "RAZOR (CVPR 2026 Findings), after the paper's description: "
ONE = Method(
    "razor",
    "RAZOR",
    f"{CITED}one step on the layer of the best score",
    (CLIP,),
    55,
    candidates,
    needs=("gradient", "retain"),
    grid=FORGET,
    symbol="weight",
    count=len(STEPS),
    asked=True,
)
register(ONE)
register(
    replace(
        ONE,
        name="razor_rounds",
        label="RAZOR in rounds",
        citation=f"{CITED}six rounds, each of which adds a layer",
        rank=56,
        candidates=rounds,
        grid=FORGET[:3],
        count=ROUNDS * len(ROUND_STEPS),
    )
)
