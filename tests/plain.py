"""Losses and gradients written out with the libraries' own forward passes and plain autograd, to compare with."""

import copy

import torch

from slug.core import losses
from slug.data.pairs import Pairs


def loss(clip, module, batch, kind):
    """The loss of a data.Pairs written out, through the library's own forward pass, in the module's precision."""
    pictures = clip.normalise(batch.images).to(module.logit_scale.dtype)
    tokens = clip.tokenize(batch.captions)
    if clip.family == "hf":
        out = module(input_ids=tokens, pixel_values=pictures)
        image, text = out.image_embeds, out.text_embeds
    else:
        image, text = module.encode_image(pictures), module.encode_text(tokens)
    image, text = image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    if kind is losses.cosine_embedding:
        return torch.nn.functional.cosine_embedding_loss(image, text, torch.ones(len(image)))
    logits = module.logit_scale.exp() * image @ text.T
    return -(logits.log_softmax(0).diagonal().mean() + logits.log_softmax(1).diagonal().mean()) / 2


def gradient(clip, batch, kind):
    """The gradient of one batch by backward() on a fresh copy of the model, in float64."""
    module = copy.deepcopy(clip.module).double().requires_grad_(True)
    loss(clip, module, batch, kind).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in module.named_parameters()}


def by_batch(clip, batch, kind, ends):
    """The plain gradient of each batch; batch k ends before pair ends[k]."""
    cuts = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    return [gradient(clip, Pairs(*(field[c] for field in batch[:3]), 0), kind) for c in cuts]


def mean(gradients, weights):
    """Weighted mean of several {name: tensor}."""
    total = sum(weights)
    return {n: sum(w * g[n] for w, g in zip(weights, gradients, strict=True)) / total for n in gradients[0]}


def distance(found, wanted):
    """Largest difference of two {name: tensor}, against the largest entry."""
    assert found.keys() == wanted.keys()
    size = max(w.abs().max() for w in wanted.values())
    return max((f - wanted[n]).abs().max() / size for n, f in found.items()).item()
