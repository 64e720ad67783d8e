"""One gradient pass over a set of pairs at the model's present weights (paper, section 3).

The model is in eval mode, as published in train mode, and its weights do not change. Gradients are added up in float64, so
nothing leaks from one set into the next, and the sum does not depend on how batches are dealt to processes. A small model
takes several batches in one pass, each with a loss of its own.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from slug import distributed, progress
from slug.core import losses
from slug.core.losses import Loss
from slug.data.pairs import some
from slug.errors import SlugError
from slug.models import towers
from slug.protocols import OURS, Protocol

BOTH = "both"  # encoders
PAIRS = 64  # go through a small model at once, at most


def batch_indices(n: int, batch_size: int, *, drop_last: bool) -> list[torch.Tensor]:
    """Index batches over n pairs in order; `drop_last` drops a short last batch, but never the only one."""
    batches = list(torch.arange(n).split(batch_size))
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def compute(
    clip: Any,
    pairs: Any,
    loss: Loss,
    *,
    batch_size: int = 16,
    square: bool = False,
    encoder: str = BOTH,
    desc: str = "gradient",
    protocol: Protocol = OURS,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Mean gradient of a loss over pairs.

    Args:
        clip: models.Clip in float32.
        pairs: data.pairs.Pairs.
        loss: losses.contrastive or losses.cosine_embedding.
        batch_size: pairs in a batch (the published runs: 16).
        square: mean of the squared gradients of the batches instead (SSD's importances).
        encoder: "vision" or "language" for the parameters of that tower alone, which costs less.
        protocol: says how batches are averaged, and in which mode the model is.
    Returns:
        ({parameter name: float32 CPU tensor of the parameter's shape}, {"loss", "pairs", "batch_size"}).
    Raises:
        SlugError: a gradient is NaN or infinite.
    """
    mean_of_means = protocol.batch_means or loss is losses.contrastive
    batches = _batches(pairs, loss, batch_size, desc)
    with _mode(clip, protocol):
        total, (weight, value, n) = _accumulate(clip, pairs, loss, batches, square, encoder, desc, mean_of_means)
    mean = {name: (total.pop(name) / weight).float().cpu() for name in list(total)}  # each sum goes as its mean comes
    bad = next((name for name, g in mean.items() if not torch.isfinite(g).all()), None)
    if bad:
        raise SlugError(f"the gradient of {bad} is NaN or infinite; check the pictures and the model's weights")
    return mean, {"loss": (value / weight).item(), "pairs": int(n), "batch_size": batch_size}


def without(
    clip: Any,
    pairs: Any,
    rows: Sequence[int],
    whole: dict[str, torch.Tensor],
    figures: dict[str, Any],
    *,
    square: bool = False,
    encoder: str = BOTH,
    desc: str = "gradient",
    protocol: Protocol = OURS,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The mean contrastive gradient over fixed batches of pairs, without the pairs `rows`.

    Only batches that hold one of `rows` are computed again, once with them and once without them, so the result does not
    depend on what else is left out elsewhere. A batch of which one pair would be left goes as a whole.

    Args:
        whole, figures: what `compute` returned for all pairs at the same weights, by the contrastive loss.
        square, encoder, protocol: as they were then.
    Returns:
        As `compute`.
    Raises:
        SlugError: no batch is left.
    """
    out, size = set(rows), figures["batch_size"]
    batches = _batches(pairs, losses.contrastive, size, desc)
    held = [b for b in batches if not out.isdisjoint(b.tolist())]
    short = [torch.tensor([i for i in b.tolist() if i not in out]) for b in held]
    short = [b for b in short if len(b) > 1]
    count = len(batches) - len(held) + len(short)
    if not count:
        raise SlugError(f"no retain pairs are left: {desc}; give a retain set of other things")
    total = {name: g.to(clip.device).double() * len(batches) for name, g in whole.items()}
    value, n = figures["loss"] * len(batches), figures["pairs"]
    with _mode(clip, protocol):
        for part, sign in ((held, -1), (short, 1)):
            if part:
                sums, (_, loss, seen) = _accumulate(clip, pairs, losses.contrastive, part, square, encoder, desc, True)
                for name, g in sums.items():
                    total[name] += sign * g
                value, n = value + sign * loss.item(), n + sign * int(seen)
    mean = {name: (total.pop(name) / count).float().cpu() for name in list(total)}
    return mean, {"loss": value / count, "pairs": n, "batch_size": size}


def of_first(
    clip: Any,
    pairs: Any,
    loss: Loss,
    counts: Sequence[int],
    *,
    batch_size: int = 16,
    encoder: str = BOTH,
    desc: str = "gradient",
    protocol: Protocol = OURS,
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """(mean gradient over the first pairs, how many) for each of `counts`, which ascend, in one pass; see `compute`.

    A count is rounded up to whole batches, as gradients come in batches; a short last batch is no part of a contrastive one.
    """
    mean_of_means = protocol.batch_means or loss is losses.contrastive
    total: dict[str, torch.Tensor] = {}
    weight, begin, size = 0.0, 0, len(pairs.captions)
    for count in counts:
        end = min(-(-count // batch_size) * batch_size, size)
        if loss is losses.contrastive and end > batch_size:
            end -= end % batch_size
        if end > begin:
            with _mode(clip, protocol):
                rows = list(range(begin, end))
                chosen = some(pairs, rows)
                batches = _batches(chosen, loss, batch_size, desc)
                part, (added, *_) = _accumulate(clip, chosen, loss, batches, False, encoder, desc, mean_of_means)
            total = {n: total[n] + t if total else t for n, t in part.items()}
            weight, begin = weight + added.item(), end
        yield {n: (t / weight).float().cpu() for n, t in total.items()}, begin


@contextlib.contextmanager
def _mode(clip: Any, protocol: Protocol) -> Iterator[None]:
    """Context within which the model is in the protocol's mode. Buffers, which train mode may move, are put back."""
    if not protocol.train_mode:
        yield
        return
    buffers = {n: b.detach().clone() for n, b in clip.module.named_buffers()}
    clip.module.train()
    try:
        yield
    finally:
        clip.module.eval()
        with torch.no_grad():
            for name, buffer in clip.module.named_buffers():
                buffer.copy_(buffers[name])


def _batches(pairs: Any, loss: Loss, batch_size: int, desc: str) -> list[torch.Tensor]:
    """The index batches of a loss on pairs. SlugError where a contrastive one would have one pair."""
    drop_last = loss is losses.contrastive
    batches = batch_indices(len(pairs.captions), batch_size, drop_last=drop_last)
    if drop_last and len(batches[0]) < 2:
        raise SlugError(
            f"the contrastive gradient of one pair is 0: {desc} has {len(pairs.captions)} pairs in batches of {batch_size}; "
            "it needs two pairs or more, and a --batch-size of at least 2"
        )
    return batches


def _accumulate(
    clip: Any,
    pairs: Any,
    loss: Loss,
    batches: list[torch.Tensor],
    square: bool,
    encoder: str,
    desc: str,
    mean_of_means: bool,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Weighted sums over batches of indices, in all processes: gradients (or squares); (weight, weighted loss, pairs)."""
    rank, world = distributed.mine()
    parameters = {n: p for n, p in clip.parameters.items() if encoder in (BOTH, clip.tower(n))}
    used = torch.cat(batches).unique()  # ascending; few pairs where single batches are computed again
    tokens = clip.tokenize([pairs.captions[i] for i in used.tolist()])
    total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    count = torch.zeros(3, dtype=torch.float64, device=clip.device)  # weight, weighted loss, pairs
    several = 1 if square or clip.module.training else _together(clip, pairs, max(map(len, batches)))
    groups = [batches[i : i + several] for i in range(0, len(batches), several)]
    for group in progress.bar(groups[rank::world], desc=desc, unit="batch", shown=rank == 0):
        rows, sizes = torch.cat(group), [len(b) for b in group]
        # The cosine loss is a mean over pairs: a short last batch weighs less. The contrastive one is a mean over batches.
        weights = [1 if mean_of_means else n for n in sizes]
        with torch.enable_grad():
            for p in parameters.values():
                p.requires_grad_(True)
            images, texts = clip.encode_image(pairs.images[rows]), clip.encode_text(tokens[torch.searchsorted(used, rows)])
            values = [
                loss(image, text, clip.scale()) for image, text in zip(images.split(sizes), texts.split(sizes), strict=True)
            ]
            whole = values[0] if square else torch.stack([w * v for w, v in zip(weights, values, strict=True)]).sum()
            grads = torch.autograd.grad(whole, list(parameters.values()), allow_unused=True)
        for name, g in zip(parameters, grads, strict=True):
            if g is not None:  # added in float64, without a float64 copy of the gradient
                total[name].add_(weights[0] * g.double() ** 2 if square else g)
        summed = [[w, w * v.item(), n] for w, v, n in zip(weights, values, sizes, strict=True)]
        count += torch.tensor(summed, dtype=torch.float64, device=clip.device).sum(0)
        del grads, g, values, whole, images, texts  # free them before the next batch's gradients are made
    for p in parameters.values():
        p.requires_grad_(False)
    for t in (*total.values(), count):
        distributed.add_up(t)
    return total, count


def _together(clip: Any, pairs: Any, batch_size: int) -> int:
    """How many batches of at most `batch_size` pairs go through the model at once, each to its own loss: the gradient of a
    sum is the sum of gradients.

    Small models run much slower on few pairs. At most PAIRS pairs go at once, or one batch.
    """
    fits = towers.fitting(clip, clip.stages("vision"), pairs.images[:1])
    return max(1, min(PAIRS, fits) // batch_size) if fits < sys.maxsize else 1
