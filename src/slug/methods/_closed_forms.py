"""What the closed forms for pipelines share: the texts that they map, and the projections of the UNet that read texts."""

from typing import TYPE_CHECKING, Any

from slug.methods import PipelineMaterial

if TYPE_CHECKING:
    from torch import Tensor

KEYS, VALUES = "attn2.to_k.weight", "attn2.to_v.weight"  # ends of the parameters that read texts


def projections(pipeline: Any, ends: tuple[str, ...] = (KEYS, VALUES)) -> list[str]:
    """Names of the UNet's parameters (out, W) that read texts."""
    return [n for n in pipeline.tensors if n.startswith("unet.") and n.endswith(ends)]


def texts(pipeline: Any, material: PipelineMaterial) -> "tuple[Tensor, Tensor, Tensor]":
    """Token states, one a row (N, W), in double precision: of the concept's prompts, of what each is to become, in the same
    order, and of the other prompts.

    Args:
        pipeline: models.diffusion.Diffusion.
    """
    own, neutral, others = (
        pipeline.embed(p).flatten(0, 1).double() for p in (material.own, material.neutral, material.others)
    )
    return own, neutral, others
