"""The one training loop of the baselines: AdamW with a cosine schedule, without warm-up by default."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from slug.core import gradients, losses
from slug.core.losses import Loss
from slug.data.pairs import Pairs
from slug.errors import SlugError
from slug.models.clip import Clip
from slug.protocols import OURS, Protocol


class Schedule(NamedTuple):
    """How a baseline trains. The defaults are the paper's."""

    lr: float
    wd: float = 0.1
    epochs: int = 10
    batch_size: int = 32
    warmup: int = 0  # optimiser steps
    seed: int = 0
    decay: bool = True  # False: the learning rate stays constant
    protocol: Protocol = OURS  # betas, eps, what decays, and what a mask does
    total: int = 0  # optimiser steps in which the cosine ends; 0: all steps of the training
    candidates: int = 0  # candidates among the optimiser steps; 0: the end of each epoch


class Pass(NamedTuple):
    """One pass over a set of pairs within an epoch."""

    pairs: Pairs
    loss: Loss
    sign: int  # +1 descends the loss, -1 ascends it


def steps_of_epoch(pairs: Pairs, batch_size: int) -> int:
    """Optimiser steps of a pass over a retain set, whose short last batch is dropped."""
    return len(gradients.batch_indices(len(pairs.captions), batch_size, drop_last=True))


def candidate_steps(total: int, count: int) -> list[int]:
    """The optimiser steps, of `total`, after which a candidate is taken: `count` of them, each farther from the one before,
    because a few first steps change most; the last one is `total`. All steps where there are no more."""
    found: list[int] = []
    for i in range(min(count, total)):
        found.append(max((found or [0])[-1] + 1, round(total ** ((i + 1) / count))))
    return found


def decays(name: str, axes: int, protocol: Protocol) -> bool:
    """Whether weight decay moves a parameter."""
    return axes > 1 and not any(part in name for part in protocol.undecayed)


def cosine(step: int, total: int, schedule: Schedule) -> float:
    """Learning rate of optimiser step `step` of `total`: linear warm-up, then half a cosine down to 0, or a constant."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    if not schedule.decay:
        return schedule.lr
    done = (step - schedule.warmup) / max(total - schedule.warmup, 1)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * done))


def train(
    clip: Clip,
    passes: Sequence[Pass],
    schedule: Schedule,
    mask: Mapping[str, torch.Tensor] | None = None,
    *,
    each_step: bool = False,
) -> Iterator[int]:
    """Train all parameters; yields the number of each finished epoch, or of each of the schedule's `candidate_steps`, while
    the model has the weights it then has.

    Args:
        clip: in float32; its weights are changed.
        passes: of one epoch, in order.
        mask: {name: bool tensor of the parameter's shape}; what is false in it keeps its value exactly, or, as published,
            has no gradient, though weight decay still moves it.
        each_step: yield the number of each optimiser step instead.
    Raises:
        SlugError: a loss is NaN or infinite.
    """
    parameters = clip.parameters
    rules = schedule.protocol
    # As in open_clip, norms, biases and the logit scale have no weight decay.
    decayed = {n for n, p in parameters.items() if decays(n, p.ndim, rules)}
    matrices = [p for n, p in parameters.items() if n in decayed]
    others = [p for n, p in parameters.items() if n not in decayed]
    groups = [{"params": matrices, "weight_decay": schedule.wd}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=rules.betas, eps=rules.eps, fused=True)
    held = mask if rules.mask_holds else None
    frozen = {} if held is None else {n: (held[n], p.detach().clone()) for n, p in parameters.items()}
    masked = {} if mask is None or rules.mask_holds else {p: mask[n] for n, p in parameters.items()}
    tokens = [clip.tokenize(part.pairs.captions) for part in passes]
    g = torch.Generator().manual_seed(schedule.seed)

    def batches(part: Pass) -> list[torch.Tensor]:
        order = torch.randperm(len(part.pairs.captions), generator=g)
        rows = gradients.batch_indices(len(order), schedule.batch_size, drop_last=part.loss is losses.contrastive)
        return [order[r] for r in rows]

    step, every = 0, schedule.epochs * sum(len(batches(part)) for part in passes)
    total, taken = schedule.total or every, candidate_steps(every, schedule.candidates)
    g.manual_seed(schedule.seed)
    for epoch in range(1, schedule.epochs + 1):
        for part, ids in zip(passes, tokens, strict=True):
            for rows in batches(part):
                for group in optimizer.param_groups:
                    group["lr"] = cosine(step, total, schedule)
                _update(clip, part, ids, rows, optimizer, masked)
                with torch.no_grad():
                    for name, (inside, value) in frozen.items():
                        # A zero gradient is not enough: weight decay would still shrink what the mask leaves out.
                        parameters[name].copy_(torch.where(inside, parameters[name], value))
                step += 1
                if each_step:
                    yield step
                elif step in taken:
                    yield taken.index(step) + 1
        if not each_step and not taken:
            yield epoch


def _update(
    clip: Clip,
    part: Pass,
    ids: torch.Tensor,
    rows: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    masked: Mapping[torch.nn.Parameter, torch.Tensor],
) -> None:
    """One optimiser step on the pairs `rows` of a pass; `masked` as for `descend`."""

    def value() -> torch.Tensor:
        return part.loss(clip.encode_image(part.pairs.images[rows]), clip.encode_text(ids[rows]), clip.scale())

    descend(clip, value, optimizer, masked, sign=part.sign)


def descend(
    clip: Clip,
    loss: Callable[[], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    masked: Mapping[torch.nn.Parameter, torch.Tensor] | None = None,
    *,
    sign: int = 1,
) -> None:
    """One optimiser step down `sign` times a loss; SlugError if it is NaN or infinite.

    Args:
        masked: {parameter: bool tensor}, outside which gradients count as 0.
    """
    parameters = list(clip.parameters.values())
    for p in parameters:
        p.requires_grad_(True)
    try:
        with torch.enable_grad():
            value = loss()
            optimizer.zero_grad()
            (sign * value).backward()
        if not torch.isfinite(value):
            raise SlugError(f"the training loss is {value.item()}; choose a lower --lr, or check the pictures")
        for p, inside in (masked or {}).items():
            if p.grad is not None:
                p.grad.mul_(inside)
        optimizer.step()
        with torch.no_grad():
            clip.clamp_scale()
    finally:
        for p in parameters:
            p.requires_grad_(False)
            p.grad = None
