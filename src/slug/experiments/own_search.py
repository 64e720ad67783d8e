"""Gradients of someone's own pictures, and what each method makes of them: SLUG's search, and the baselines' trainings."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from slug import methods, progress
from slug.core import gradients, layers, losses, preconditioning, search, selection, slug
from slug.core.edit import Edit, InPlace, Replacement, kept
from slug.core.gradients import BOTH
from slug.core.search import Plan, Schedule
from slug.core.selection import Candidate
from slug.core.variants import Variant
from slug.errors import SlugError
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.experiments.baseline import Scored
from slug.experiments.comparison import argument
from slug.experiments.own_sets import OwnSets
from slug.methods import Material, Method, grids
from slug.models.host import HostModel
from slug.settings import Compare, Data

Gradient = dict[str, torch.Tensor]
DEFAULTS: Mapping[str, Any] = vars(Compare(data=Data(celeb_name=())))  # of baselines


def method_of(name: str) -> Method:
    """The method of a name, for a CLIP. SlugError for another one."""
    found = methods.get(name)
    if methods.CLIP not in found.hosts:
        raise SlugError(f"{name} is no method for a CLIP; choose from {', '.join(methods.names(methods.CLIP))}")
    return found


class OwnSearch:
    """One method on OwnSets; passes over pairs are made once and serve all names."""

    def __init__(self, sets: OwnSets, method: Method, host: HostModel | None = None) -> None:
        """`host` is a model that contains one tower of the CLIP: only layers that it reads are edited, by SLUG."""
        self.sets, self.clip, self.wanted, self.method = sets, sets.clip, sets.wanted, method
        self.encoder = host.encoder if host else BOTH
        self.layers = host.candidates() if host else None
        if host and not method.searched:
            raise SlugError(f"{method.name} is not searched on a model that contains a CLIP; choose a variant of SLUG")

    def run(self, name: str, evaluator: ClipEvaluator) -> tuple[search.Found, list[layers.Layer]]:
        """What the method finds for a name, and for SLUG the layers that it could have edited."""
        return self._searched(name, evaluator) if self.method.searched else (self._trained(name, evaluator), [])

    def _pairs(self, name: str) -> Any:
        return self.sets.forget_pairs(name) if name else self.sets.retain_pairs

    @functools.cache  # noqa: B019  (one Forgetting lives as long as its model)
    def _pass(self, name: str, variant: Variant) -> Gradient:
        """A gradient pass over a name's pairs, or for "" over the retain pairs."""
        pairs = self._pairs(name)
        loss = losses.forget(variant) if name else losses.contrastive
        how: dict[str, Any] = {"batch_size": self.wanted.batch_size, "square": variant.squared, "encoder": self.encoder}
        return gradients.compute(self.clip, pairs, loss, **how, desc=f"{name or 'retain set'}: gradient")[0]

    @functools.cache  # noqa: B019
    def _moments(self, name: str) -> preconditioning.Found:
        pairs = self._pairs(name)
        return preconditioning.moments(self.clip, pairs, **self._reading, desc=f"{name or 'retain set'}: layer inputs")

    @property
    def _reading(self) -> dict[str, Any]:
        """How inputs of layers are read: a pipeline also reads what stands behind a text's end."""
        return {"batch_size": self.wanted.batch_size, "encoder": self.encoder, "padded": self.encoder == "language"}

    def forget_gradient(self, name: str, variant: Variant) -> Gradient:
        """The gradient that SLUG steps along."""
        found = self._pass(name, variant.plain)
        if not variant.preconditioned:
            return found
        others = [n for n in self.sets.names if n != name] if variant.spares_others else []
        held = {n: self._pairs(n) for n in ("", *others)}
        sums = {n: self._moments(n) for n in held}
        moments = preconditioning.retained(self.clip, held, sums, name, **self._reading)
        return preconditioning.preconditioned(found, moments)

    def _searched(self, name: str, evaluator: ClipEvaluator) -> tuple[search.Found, list[layers.Layer]]:
        """SLUG's search, and the layers that it could have edited."""
        forget = self.forget_gradient(name, self.method.variant)
        ranked = layers.figures(self.clip, forget, self._pass("", Variant()), self.layers)
        front = [layer for part in layers.fronts(ranked, self.wanted.fronts).values() for layer in part]
        # Where the model does not know the name, every step "forgets", and there is nothing to search for.
        evaluations = min(self.wanted.evaluations, 2) if evaluator.start.forgotten else self.wanted.evaluations
        lookahead = 3 if self.clip.device.type == "cuda" else 1
        plan = Plan(schedule=Schedule(lookahead=lookahead, evaluations=evaluations))
        bar = progress.bar(front, desc=f"{name}: layers", unit="layer")
        return slug.over_layers(self.clip, evaluator, bar, forget, plan), ranked

    def _trained(self, name: str, evaluator: ClipEvaluator) -> search.Found:
        """A baseline over its grid, chosen by the same rule."""
        method = self.method
        assert method.candidates is not None
        made = self._material(name)
        asked = sorted(self.wanted.grid or method.grid or DEFAULTS[method.setting])
        how = {"wd": DEFAULTS["wd"], "batch_size": 32, "warmup": 0}
        how |= {"epochs": self.wanted.epochs, "seed": self.wanted.seed}
        curves: dict[str, list[Candidate]] = {}
        setting_of: dict[str, float] = {}
        best: Candidate | None = None

        def chosen() -> list[float]:
            return [setting_of[best.layer]] if best else []

        for setting in grids.growing(asked, DEFAULTS["grow"] * method.grows, chosen):
            label = f"{method.symbol} {setting:g}"
            setting_of[label], scored = setting, Scored(evaluator, best)
            with kept(self.clip, self.clip.parameters) as base:
                for number in method.candidates(self.clip, made, argument(method, setting, how)):
                    edit = InPlace.of(self.clip, label, number, base)
                    with evaluator.evaluation.carrying(edit):
                        scored.score(edit, base)
            curves[label] = [replace(c, edit=Edit({}, c.layer, c.step)) for c in scored.candidates]
            if scored.best is not None and selection.winner([best, scored.best]) is scored.best:
                best = replace(scored.best, edit=Replacement(scored.weights, scored.best.layer, scored.best.step))
        return search.Found(curves, best)

    def _material(self, name: str) -> Material:
        method = self.method
        made: dict[str, Any] = {"name": name, "names": [n for n in self.sets.classes if n != name]}
        for variant in method.gradients:
            if variant.squared:
                made |= {"forget_importance": self._pass(name, variant), "retain_importance": self._pass("", variant)}
            else:
                made["gradient"] = self._pass(name, variant)
                if "retain" in method.needs:
                    made["retain_gradient"] = self._pass("", variant)
        return Material(self._pairs(name), self._pairs(""), method.variant, **made)
