"""What an edit is: a change of named parameters that a model carries within a context."""

import contextlib

import torch

from slug.core import gradients


@contextlib.contextmanager
def kept(clip, names):
    """Within the context the parameters `names` may be changed; afterwards, even after an error, they are as before."""
    parameters = clip.parameters
    base = {n: parameters[n].detach().clone() for n in names}
    with clip.changing(base):
        try:
            yield base
        finally:
            with torch.no_grad():
                for name, value in base.items():
                    parameters[name].copy_(value)


@contextlib.contextmanager
def holding(clip, values):
    """Within the context the model's parameters have these values, {native parameter name: tensor}."""
    parameters = clip.parameters
    with kept(clip, values), torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
        yield clip


@contextlib.contextmanager
def applied(clip, edit):
    """Within the context the model's parameters are base + edit, {native parameter name: tensor to add}."""
    parameters = clip.parameters
    with holding(clip, {n: parameters[n].detach() + change.to(parameters[n].device) for n, change in edit.items()}):
        yield clip


def summed(edits, factors=None):
    """The sum of edits, [{native parameter name: change}], each times its factor (1 where None); 0 leaves an edit out."""
    total = {}
    for edit, factor in zip(edits, factors or [1.0] * len(edits), strict=True):
        for n, change in edit.items() if factor else ():
            total[n] = total.get(n, 0) + factor * change
    return total


def edit_of(clip, layer, forget, step):
    """{parameter name: step * gradient} of a layer's group: a POSITIVE step adds the gradient of 1 - cos (trap 2).

    Args:
        layer: a layer's name, or the names of the parameters themselves.
    """
    names = clip.group(layer) if isinstance(layer, str) else layer
    return {n: step * forget[n].to(clip.device) for n in names}


def union(clip, front):
    """The parameters that [layers.Layer] and their groups move, in that order."""
    return tuple(dict.fromkeys(n for found in front for n in clip.group(found.name)))


def edited_by(clip, names):
    """What Evaluation.sides is told of an edit of these parameters: BOTH towers, or the one that is read first."""
    return gradients.BOTH if len({clip.tower(n) for n in names}) > 1 else min(names, key=clip.stage)
