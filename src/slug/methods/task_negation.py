"""Task negation: the vision tower learns the forget set even better, and the difference is subtracted.

tau = theta_tuned - theta_0 after fine-tuning by the cross-entropy of the pictures over the names, whose text embeddings
stay as they are; then theta = theta_0 - a tau for a from 0 to 1 (Ilharco et al., ICLR 2023).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    import torch

    from slug.core.losses import Loss
    from slug.methods._training import Schedule
    from slug.models.clip import Clip

SCALES = tuple(k / 20 for k in range(21))  # a


def over_names(classes: "torch.Tensor") -> "Loss":
    """The cross-entropy of pictures that all show the first of the names with unit embeddings (C, D)."""
    import torch.nn.functional as F

    def loss(image: "torch.Tensor", text: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
        logits = scale * image @ classes.T
        return F.cross_entropy(logits, logits.new_zeros(len(logits)).long())

    return loss


def candidates(clip: "Clip", material: Material, schedule: "Schedule") -> Iterator[int]:
    """Train, then yield the number of each a."""
    import torch

    from slug.methods import _matrices
    from slug.methods._training import Pass, train

    vision = [n for n in clip.parameters if clip.tower(n) == "vision"]
    base = {n: clip.parameters[n].detach().clone() for n in vision}
    classes = _matrices.encoded(clip, [_matrices.TEMPLATES[0].format(n) for n in (material.name, *material.names)])
    inside = {n: torch.full_like(p, clip.tower(n) == "vision", dtype=torch.bool) for n, p in clip.parameters.items()}
    for _ in train(clip, [Pass(material.forget, over_names(classes), +1)], schedule, inside):
        pass
    tau = {n: clip.parameters[n].detach() - base[n] for n in vision}
    for number, scale in enumerate(SCALES, 1):
        with torch.no_grad():
            for n in vision:
                clip.parameters[n].copy_(base[n] - scale * tau[n])
        yield number


CITED = "task negation (Ilharco et al., ICLR 2023): what learning the name better adds to the vision tower, subtracted"
register(
    Method(
        "task_negation",
        "Task negation",
        CITED,
        (CLIP,),
        54,
        candidates,
        setting="lr",
        count=len(SCALES),
        trains=True,
        epochs="forget_epochs",
        asked=True,
    )
)
