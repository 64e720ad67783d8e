"""Input-covariance preconditioning of the forget gradient: the variants `_w` and `_ws`.

The paper steps along the gradient G of a matrix W, y = W x. Of all changes D with the same inner product <D, G>, the one
that moves y least on the retain set is D = G (C + c I)^-1, where C is the mean of x x^T over the layer's inputs there: it
has the least E|D x|^2 + c |D|^2. The same inverse is OWM's projector (Zeng et al., 2019), the input factor of FOOF (Benzing,
2022) and of K-FAC (Martens and Grosse, 2015), and the ridge regression by which UCE edits cross-attention (Gandikota et al.,
WACV 2024). It is still one gradient pass and one step on one layer; one forward pass over the retain set is added.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from slug import distributed, progress
from slug.data.names import plain_name
from slug.data.pairs import saying

# c as a fraction of C's mean eigenvalue, chosen on Penguin, Crab, Princess and Tiger, for which no figure is reported.
DAMPING = 0.03
Found = dict[str, tuple[torch.Tensor, int]]


class Moments(TorchFunctionMode):
    """Context that adds up x x^T over the inputs of every matrix of a model, through whichever function reads it.

    Attributes:
        found: {parameter name: (float64 sum (d, d), axis of the parameter, flattened to a matrix, that meets x)}.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """
        Args:
            parameters: {name: parameter}; those of two axes or more are watched.
        """
        super().__init__()
        # Slices of a parameter are recognised by the storage that they share with it.
        self.watched = {p.untyped_storage().data_ptr(): (n, p) for n, p in parameters.items() if p.ndim > 1}
        self.found: Found = {}

    def __torch_function__(self, func: Any, types: Any, given: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        weight = given[1] if len(given) > 1 and isinstance(given[1], torch.Tensor) else None
        place = weight.untyped_storage().data_ptr() if weight is not None else None
        name, parameter = self.watched.get(place, ("", None)) if place is not None else ("", None)
        if weight is not None and parameter is not None:
            kind, same = getattr(func, "__name__", ""), weight.stride() == parameter.stride()
            if kind == "linear" and same:
                self._add(name, given[0], 1)
            elif kind in ("matmul", "__matmul__") and same:  # not of its transpose
                self._add(name, given[0], 0)
            elif kind == "conv2d":
                self._convolution(name, *given, **kwargs)
        return func(*given, **kwargs)

    def _convolution(
        self,
        name: str,
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        if groups == 1 and not isinstance(padding, str):
            how = {"dilation": dilation, "padding": padding, "stride": stride}
            self._add(name, F.unfold(x, weight.shape[2:], **how).transpose(1, 2), 1)

    def _add(self, name: str, x: torch.Tensor, axis: int) -> None:
        x = x.detach().flatten(0, -2).float()
        total = self.found[name][0] if name in self.found else 0
        self.found[name] = total + (x.T @ x).double(), axis


@torch.no_grad()
def moments(
    clip: Any,
    pairs: Any,
    *,
    rows: Iterable[int] | None = None,
    batch_size: int = 16,
    encoder: str = "both",
    padded: bool = False,
    desc: str = "layer inputs",
) -> Found:
    """The input moments of every matrix of a model on pairs, of all processes, at the model's present weights.

    A matrix that is read by other functions than linear layers, products and ungrouped convolutions is left out.

    Args:
        clip: models.Clip in float32.
        pairs: data.pairs.Pairs.
        rows: indices of the pairs that are used; None: all.
        encoder: "vision" or "language" for that tower alone.
        padded: include the positions after a text's end, which a CLIP does not read but a pipeline does.
    """
    rank, world = distributed.mine()
    watched = Moments({n: p for n, p in clip.parameters.items() if encoder in ("both", clip.tower(n))})
    tokens = clip.tokenize(pairs.captions)
    chosen = torch.arange(len(tokens)) if rows is None else torch.as_tensor(rows)
    lengths = (torch.full((len(tokens),), tokens.shape[1]) if padded else clip.text_lengths(tokens))[chosen]
    # Texts of one length together, so that none is padded.
    batches = [b for n in lengths.unique() for b in chosen[lengths == n].split(batch_size)]
    share = batches[rank::world]
    with watched:
        # A process without a share looks at one batch all the same and adds nothing: all must add up the same matrices.
        for batch in progress.bar(share or batches[:1], desc=desc, unit="batch", shown=rank == 0):
            if encoder != "language":
                clip.encode_image(pairs.images[batch])
            if encoder != "vision":
                clip.encode_text(tokens[batch], trim=not padded)
    for total, _ in watched.found.values():
        distributed.add_up(total if share else total.zero_())
    return watched.found


def combined(found: Found, more: list[Found], sign: int = 1) -> Found:
    """The moments of all pairs of `found` and of each of `more`; with sign -1 without the latter."""
    return {name: (total + sign * sum(m[name][0] for m in more), axis) for name, (total, axis) in found.items()}


def retained(clip: Any, held: Mapping[str, Any], sums: Mapping[str, Found], name: str, **how: Any) -> Found:
    """The moments of the pairs that must be retained where a name is forgotten: of every set but the name's own, those whose
    caption does not contain it (the set of a style shows objects, and the sets of objects show the style).

    Args:
        held: {name of a forget set, "" for the retain set: data.pairs.Pairs}.
        sums: {the same: its moments}.
        how: arguments of `moments`, as for `sums`.
    """
    others = [n for n in held if n and n != name]
    found, own = combined(sums[""], [sums[n] for n in others]), []
    for n in ["", *others]:
        rows = saying(held[n], [plain_name(name)])
        if rows:
            own.append(moments(clip, held[n], rows=rows, desc=f"{name}: its own pairs", **how))
    return combined(found, own, sign=-1)


def preconditioned(gradients: Mapping[str, torch.Tensor], found: Found, damping: float = DAMPING) -> dict[str, torch.Tensor]:
    """{name: direction} from {name: gradient}, with the gradient's norm, so that steps keep their scale. A parameter without
    moments, such as a norm's weight, keeps its gradient.

    Args:
        damping: c as a fraction of the mean eigenvalue of each moment.
    """
    out = dict(gradients)
    for name, (moment, axis) in found.items():
        gradient = gradients[name]
        matrix = gradient.double().flatten(1).to(moment.device)
        eye = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        ridge = moment + damping * moment.diagonal().mean() * eye
        solved = torch.linalg.solve(ridge, matrix.movedim(axis, 0)).movedim(0, axis)
        if (norm := solved.norm()) > 0:
            out[name] = (solved * (matrix.norm() / norm)).view_as(gradient).float().cpu()
    return out
