"""The two losses of the method (paper, section 3; PAPER.md, section 1). Both DEcrease when image and text agree more."""

import torch
import torch.nn.functional as F


def contrastive(image, text, scale):
    """CLIP's symmetric contrastive loss of matched unit features (N, D), (N, D): the retain loss. Returns a scalar."""
    logits = scale * image @ text.T  # (N, N), row i: picture i against every text
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def cosine_embedding(image, text, scale=None):
    """Mean of 1 - cos(image_i, text_i) over matched unit features (N, D): the forget loss. Returns a scalar.

    SLUG takes a positive step ALONG its gradient, which is ascent on 1 - cos: matched pairs drift apart.
    `scale` is not used; it is there so that both losses are called alike.
    """
    return (1 - (image * text).sum(-1)).mean()


FORGET = {"": cosine_embedding, "_o": contrastive}  # the variant `_o` takes the contrastive loss on the forget set too
