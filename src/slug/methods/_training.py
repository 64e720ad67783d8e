"""The one training loop of the baselines: AdamW, a cosine schedule, no warm-up by default."""

import math
from typing import NamedTuple

import torch

from slug.core import gradients, losses
from slug.errors import SlugError


class Schedule(NamedTuple):
    """How a baseline trains. Defaults are the paper's."""

    lr: float
    wd: float = 0.1
    epochs: int = 10
    batch_size: int = 32
    warmup: int = 0  # optimiser steps
    seed: int = 0
    decay: bool = True  # False: the learning rate stays as it is


class Pass(NamedTuple):
    """One pass over a set of pairs within an epoch."""

    pairs: object  # data.Pairs
    loss: object  # see slug.losses
    sign: int  # +1 descends the loss, -1 ascends it


def cosine(step, total, schedule):
    """Learning rate of optimiser step `step` of `total`: linear warm-up, then half a cosine down to 0, or none."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    if not schedule.decay:
        return schedule.lr
    done = (step - schedule.warmup) / max(total - schedule.warmup, 1)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * done))


def train(clip, passes, schedule, mask=None, *, each_step=False):
    """Train all parameters; yields the epoch (1, 2, ...) after each, with the model's weights as they are then.

    Args:
        clip: models.Clip in float32; its weights are changed.
        passes: [Pass] of one epoch, in order.
        mask: {name: bool tensor of the parameter's shape}; where given, everything outside it keeps its value exactly.
        each_step: yield after every optimiser step instead, their number so far.
    Raises:
        SlugError: a loss is NaN or infinite.
    """
    parameters = clip.parameters
    # open_clip's convention: no decay on norms, biases and the scale.
    matrices = [p for p in parameters.values() if p.ndim > 1]
    rest = [p for p in parameters.values() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": schedule.wd}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, fused=True)
    frozen = {} if mask is None else {n: (mask[n], p.detach().clone()) for n, p in parameters.items()}
    tokens = [clip.tokenize(part.pairs.captions) for part in passes]
    g = torch.Generator().manual_seed(schedule.seed)

    def batches(part):
        order = torch.randperm(len(part.pairs.captions), generator=g)
        rows = gradients.batch_indices(len(order), schedule.batch_size, drop_last=part.loss is losses.contrastive)
        return [order[r] for r in rows]

    step, total = 0, schedule.epochs * sum(len(batches(part)) for part in passes)
    g.manual_seed(schedule.seed)
    for epoch in range(1, schedule.epochs + 1):
        for part, ids in zip(passes, tokens, strict=True):
            for rows in batches(part):
                for group in optimizer.param_groups:
                    group["lr"] = cosine(step, total, schedule)
                _update(clip, part, ids, rows, optimizer)
                with torch.no_grad():
                    for name, (inside, value) in frozen.items():
                        # A zero gradient is not enough: weight decay would still shrink what the mask leaves out.
                        parameters[name].copy_(torch.where(inside, parameters[name], value))
                step += 1
                if each_step:
                    yield step
        if not each_step:
            yield epoch


def _update(clip, part, ids, rows, optimizer):
    """One optimiser step on the pairs `rows` of a pass."""
    parameters = list(clip.parameters.values())
    for p in parameters:
        p.requires_grad_(True)
    try:
        with torch.enable_grad():
            value = part.loss(clip.encode_image(part.pairs.images[rows]), clip.encode_text(ids[rows]), clip.scale())
            optimizer.zero_grad()
            (part.sign * value).backward()
        if not torch.isfinite(value):
            raise SlugError(f"the loss is {value.item()} in training; take a lower --lr, or check the pictures")
        optimizer.step()
        with torch.no_grad():
            clip.clamp_scale()
    finally:
        for p in parameters:
            p.requires_grad_(False)
            p.grad = None
