"""CLIPErase: drive matched forget pairs apart, with two losses that hold the retain set (ACL 2025).

3 mean(image . text) on forget pairs + the contrastive loss on retain pairs + 3 KL(original, unlearned) between the
distributions within a retain batch, pictures over texts and texts over pictures. Adam at a constant rate; a step takes one
batch of each set, and an epoch is a pass over the forget set.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.methods._training import Schedule
    from slug.models.clip import Clip

FORGET, RETAIN, CONSISTENCY = 3.0, 1.0, 3.0  # weights of the three terms
BATCH = 16
COUNT = 20  # candidates of a learning rate: optimiser steps, evenly spread where there are more


def divergence(before: "torch.Tensor", after: "torch.Tensor") -> "torch.Tensor":
    """KL(softmax(before), softmax(after)) of logits (N, N), the mean over rows and columns."""
    import torch.nn.functional as F

    def one(p: "torch.Tensor", q: "torch.Tensor") -> "torch.Tensor":
        return F.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="batchmean", log_target=True)

    return (one(before, after) + one(before.T, after.T)) / 2


def loss(
    forget: "tuple[torch.Tensor, torch.Tensor]",
    retain: "tuple[torch.Tensor, torch.Tensor]",
    scale: "torch.Tensor",
    before: "torch.Tensor",
) -> "torch.Tensor":
    """The sum of the three terms.

    Args:
        forget, retain: unit features (N, D) of pictures and of their texts.
        before: the original model's logits (N, N) of the retain batch.
    """
    from slug.core import losses

    apart = (forget[0] * forget[1]).sum(1).mean()
    after = scale * retain[0] @ retain[1].T
    return FORGET * apart + RETAIN * losses.contrastive(*retain, scale) + CONSISTENCY * divergence(before, after)


def candidates(clip: "Clip", material: Material, schedule: "Schedule") -> Iterator[int]:
    """Train; yield the number of each candidate."""
    import torch

    from slug.methods._training import descend

    sets = material.forget, material.retain
    tokens = [clip.tokenize(pairs.captions) for pairs in sets]
    g = torch.Generator().manual_seed(schedule.seed)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    for _ in range(schedule.epochs):
        own = torch.randperm(len(tokens[0]), generator=g).split(BATCH)
        batches += [(rows, torch.randperm(len(tokens[1]), generator=g)[:BATCH]) for rows in own]

    def features(which: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return clip.encode_image(sets[which].images[rows]), clip.encode_text(tokens[which][rows])

    with torch.no_grad():
        kept = [features(1, rows) for _, rows in batches]
        before = [clip.scale() * image @ text.T for image, text in kept]
    optimizer = torch.optim.Adam(clip.parameters.values(), lr=schedule.lr)
    every = -(-len(batches) // COUNT)
    for step, ((own, other), logits) in enumerate(zip(batches, before, strict=True), 1):
        descend(clip, lambda: loss(features(0, own), features(1, other), clip.scale(), logits), optimizer)  # noqa: B023
        if step % every == 0:
            yield step // every


CITED = "CLIPErase (ACL 2025), after the paper's description: forget pairs driven apart, retain pairs held by two losses"
register(
    Method(
        "cliperase",
        "CLIPErase",
        CITED,
        (CLIP,),
        58,
        candidates,
        setting="lr",
        count=COUNT,
        trains=True,
        epochs="forget_epochs",
        asked=True,
    )
)
