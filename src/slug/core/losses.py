"""The two losses of the method (paper, section 3). Both decrease when image and text agree more."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from slug.core.variants import Variant

Loss = Callable[..., torch.Tensor]


def contrastive(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric contrastive loss of matched unit features (N, D), (N, D): the retain loss. Returns a scalar."""
    logits = scale * image @ text.T  # (N, N), row i: picture i against every text
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def cosine_embedding(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of 1 - cos(image_i, text_i) over matched unit features (N, D): the forget loss. Returns a scalar.

    SLUG takes a positive step ALONG its gradient, which is ascent on 1 - cos: matched pairs drift apart. `scale` is not
    used; both losses have the same signature.
    """
    return (1 - (image * text).sum(-1)).mean()


def forget(variant: Variant) -> Loss:
    """The forget loss of a variant."""
    return contrastive if variant.contrastive else cosine_embedding
