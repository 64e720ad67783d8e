"""A step that moves what a layer gives on the retain set the least, for as much gain on the forget set: the methods `_w` and
`_ws`, where the retain set has the other forget names' sets beside.

The paper steps along the gradient G of a matrix W, y = W x. Of all changes D with the same inner product <D, G>, the one
that moves y least on the retain set is D = G (C + c I)^-1: it has the least E|D x|^2 + c |D|^2, where C is the mean of x x^T
over what enters the layer there. It is ridge regression's solution, by which UCE edits cross-attention (Gandikota et al.,
WACV 2024), with the gradient in place of a target. Still one gradient pass and one step on one layer; one forward pass over
the retain set more, which only the forgotten name's own pairs are left out of.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from slug import distributed
from slug.data.names import Matcher, plain_name

# c, as a part of C's mean eigenvalue. Settled on Penguin, Crab, Princess and Tiger, none of which is reported.
DAMPING = 0.03


class Moments(TorchFunctionMode):
    """Context that adds up x x^T of what enters every matrix of a model, through whichever function reads it.

    Attributes:
        found: {parameter name: (float64 sum (d, d), axis of the parameter, flattened to a matrix, that x meets)}.
    """

    def __init__(self, parameters):
        """
        Args:
            parameters: {name: parameter}; those of two axes or more are watched.
        """
        super().__init__()
        # Slices of a parameter are told by the storage that they share with it.
        self.watched = {p.untyped_storage().data_ptr(): (n, p) for n, p in parameters.items() if p.ndim > 1}
        self.found = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        weight = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else None
        place = weight.untyped_storage().data_ptr() if weight is not None else None
        name, parameter = self.watched.get(place, ("", None))
        kind = getattr(func, "__name__", "") if name else ""
        if kind == "linear" and weight.stride() == parameter.stride():
            self._add(name, args[0], 1)
        elif kind in ("matmul", "__matmul__") and weight.stride() == parameter.stride():  # not of its transpose
            self._add(name, args[0], 0)
        elif kind == "conv2d":
            self._convolution(name, *args, **kwargs)
        return func(*args, **kwargs)

    def _convolution(self, name, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        if groups == 1 and not isinstance(padding, str):
            how = {"dilation": dilation, "padding": padding, "stride": stride}
            self._add(name, F.unfold(x, weight.shape[2:], **how).transpose(1, 2), 1)

    def _add(self, name, x, axis):
        x = x.detach().flatten(0, -2).float()
        total = self.found[name][0] if name in self.found else 0
        self.found[name] = total + (x.T @ x).double(), axis


@torch.no_grad()
def moments(clip, pairs, *, rows=None, batch_size=16, encoder="both", padded=False, desc="inputs"):
    """What enters each matrix of a model on pairs: Moments.found, of all processes, at the model's present weights.

    A matrix that is read by other functions than linear layers, products and ungrouped convolutions is left out.

    Args:
        clip: models.Clip in float32.
        pairs: data.Pairs.
        rows: indices of those that count; all without.
        encoder: "vision" or "language" for that tower alone.
        padded: count what is behind a text's end, too: nobody reads it in a CLIP, but a pipeline does.
    """
    rank, world = distributed.mine()
    watched = Moments({n: p for n, p in clip.parameters.items() if encoder in ("both", clip.tower(n))})
    tokens = clip.tokenize(pairs.captions)
    rows = torch.arange(len(tokens)) if rows is None else torch.as_tensor(rows)
    lengths = (torch.full((len(tokens),), tokens.shape[1]) if padded else clip.text_lengths(tokens))[rows]
    # Texts of one length together, so that no other is padded.
    batches = [b for n in lengths.unique() for b in rows[lengths == n].split(batch_size)]
    share = batches[rank::world]
    with watched:
        # A process without a share looks at one batch all the same, and adds nothing: all must add up the same matrices.
        for batch in tqdm(share or batches[:1], desc=desc, unit="batch", disable=rank > 0):
            if encoder != "language":
                clip.encode_image(pairs.images[batch])
            if encoder != "vision":
                clip.encode_text(tokens[batch], trim=not padded)
    for total, _ in watched.found.values():
        distributed.add_up(total if share else total.zero_())
    return watched.found


def added(found, more, sign=1):
    """What `moments` would find of all the pairs that it found `found` and each of the list `more` of; with sign -1 without
    the latter."""
    return {name: (total + sign * sum(m[name][0] for m in more), axis) for name, (total, axis) in found.items()}


def staying(clip, held, sums, name, **how):
    """What `moments` would find of the pairs that must stay where a name goes: of every set but its own, those whose caption
    does not say it (a style's forget set shows objects, and theirs the style).

    Args:
        held: {name of a forget set, "" of the retain set: data.Pairs}.
        sums: the same of what `moments` found of each.
        name: forget name; with a set in `held` or without.
        how: of `moments`, as for `sums`.
    """
    others, matcher = [n for n in held if n and n != name], Matcher([plain_name(name)])
    found, own = added(sums[""], [sums[n] for n in others]), []
    for n in ["", *others]:
        rows = [i for i, caption in enumerate(held[n].captions) if matcher.find(caption)]
        if rows:
            own.append(moments(clip, held[n], rows=rows, desc=f"those of {name}", **how))
    return added(found, own, sign=-1)


def whitened(gradients, found, damping=DAMPING):
    """{name: direction} of {name: gradient}: of the gradient's norm, so that steps keep their scale. What has no moment, a
    norm's weight for one, keeps its gradient.

    Args:
        found: what `moments` found.
        damping: c, as a part of the mean eigenvalue of a moment.
    """
    out = dict(gradients)
    for name, (moment, axis) in found.items():
        gradient = gradients[name]
        matrix = gradient.double().flatten(1).to(moment.device)
        ridge = moment + damping * moment.diagonal().mean() * torch.eye(
            len(moment), dtype=moment.dtype, device=moment.device
        )
        solved = torch.linalg.solve(ridge, matrix.movedim(axis, 0)).movedim(0, axis)
        if (norm := solved.norm()) > 0:
            out[name] = (solved * (matrix.norm() / norm)).view_as(gradient).float().cpu()
    return out
