"""Trainings in a few lines of plain torch: what the baselines' own are compared with."""

import math
from dataclasses import dataclass
from typing import Any

import tiny
import torch

from slug import methods
from slug.core import gradients, losses
from slug.core.edit import kept
from slug.core.variants import Variant
from slug.methods._training import Schedule

LR = 1e-3


def weights(clip):
    """{name: copy of the parameter}."""
    return {n: p.detach().clone() for n, p in clip.parameters.items()}


def loss_of(clip, pairs, kind):
    """The loss of all pairs, written out; `kind` is "cosine" or "contrastive"."""
    image = clip.encode_image(pairs.images)
    text = clip.encode_text(clip.tokenize(pairs.captions))
    if kind == "cosine":
        return 1 - (image * text).sum(1).mean()
    logits = clip.module.logit_scale.exp() * image @ text.T
    return -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2


@dataclass
class Small:
    """A model and the material of a baseline; the model is the same after every call."""

    clip: Any
    material: Any

    def after(self, method, epochs=1, material=None):
        """The weights after a method's last epoch."""
        method = methods.get(method)
        material = (material or self.material)._replace(variant=method.variant)
        with kept(self.clip, self.clip.parameters):
            numbers = list(method.candidates(self.clip, material, Schedule(LR, epochs=epochs)))
            assert numbers == list(range(1, epochs + 1))
            return weights(self.clip)

    def plain(self, steps):
        """The weights after AdamW in plain torch, one optimiser step for each of `steps`: (set, loss, sign)."""
        clip = self.clip
        with kept(clip, clip.parameters):
            parameters = [p.requires_grad_(True) for p in clip.parameters.values()]
            groups = [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0},
            ]
            optimiser = torch.optim.AdamW(groups)
            for number, (pairs, kind, sign) in enumerate(steps):
                for group in optimiser.param_groups:
                    group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * number / len(steps)))
                optimiser.zero_grad()
                (sign * loss_of(clip, getattr(self.material, pairs), kind)).backward()
                optimiser.step()
            for p in parameters:
                p.requires_grad_(False)
                p.grad = None
            return weights(clip)

    def check(self, method, steps):
        """Assert that an epoch of a method is what plain torch does with `steps`, and that the model is as before."""
        before = weights(self.clip)
        found, wanted = self.after(method), self.plain(steps)
        assert tiny.same_tensors(weights(self.clip), before)
        assert max((wanted[n] - before[n]).abs().max().item() for n in wanted) > LR / 2
        for name, value in wanted.items():
            # AdamW's first step is lr * sign(g): where g is rounding noise around 0 its sign may differ, as in the biases of
            # the keys, which no softmax feels.
            if not name.endswith("in_proj_bias"):
                assert ((found[name] - value).abs() > 1e-5).float().mean() < 0.02, name


def each(small, method, setting):
    """{number of a candidate: {name: value}} of the weights that a method's candidates change; the model is put back."""
    before, found = weights(small.clip), {}
    with kept(small.clip, small.clip.parameters):
        for number in methods.get(method).candidates(small.clip, small.material, setting):
            now = weights(small.clip)
            found[number] = {n: w for n, w in now.items() if not torch.equal(w, before[n])}
    assert list(found) == list(range(1, len(found) + 1))
    return found


def inputs_of_projection(clip, encoder, batch):
    """What a tower's projection reads of open_clip's pairs: (N, width), float64 numpy."""
    first = batch.images if encoder == "vision" else clip.trimmed(clip.tokenize(batch.captions))
    x = first
    with torch.no_grad():
        for stage in clip.stages(encoder)[:-1]:
            x = stage(x, first)
        x = clip.module.visual.ln_post(x) if encoder == "vision" else clip.module.ln_final(x)
    return x.double().numpy()


def of_name(clip):
    """What `rival` is, of a model of either family."""
    forget = tiny.pairs(6, names=("an alien",))
    retain = tiny.pairs(20, seed=1, names=("ant", "baby", "a bento box"))
    gradient, _ = gradients.compute(clip, forget, losses.cosine_embedding)
    other, _ = gradients.compute(clip, retain, losses.contrastive)
    about = {"name": "Alien", "names": ["Ant", "Baby", "Bento Box", "Owl"], "retain_gradient": other}
    return Small(clip, methods.Material(forget, retain, Variant(), gradient, **about))
