"""SLUG from gradients to the winning edit, to be read beside section 3 of the paper.

1. One gradient pass over the forget set and one over the retain set, at the original weights.
2. For every layer: importance ||grad L_forget|| / ||theta||, and alignment cos(grad L_forget, grad L_retain).
3. The Pareto front of each encoder: high importance, low |alignment|.
4. For each layer on it, a search of the step in theta <- theta + step * grad L_forget.
5. The winner among all steps of all layers.

The evaluator knows the model family and the data; everything here is about parameters, gradients and candidates.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from slug.core import gradients, layers, losses, search, selection
from slug.core.edit import Edit
from slug.core.layers import Layer
from slug.core.search import Found, Plan
from slug.core.selection import Candidate

Gradient = Mapping[str, torch.Tensor]
STANDARD = Plan()


def slug(model: Any, evaluator: Any, forget_pairs: Any, retain_pairs: Any, plan: Plan = STANDARD) -> Found:
    """The whole method on one concept.

    Args:
        model: models.Clip at its original weights.
        evaluator: evaluation.protocol.Evaluator of the validation split.
        forget_pairs, retain_pairs: data.pairs.Pairs.
    """
    forget, _ = gradients.compute(model, forget_pairs, losses.cosine_embedding)
    retain, _ = gradients.compute(model, retain_pairs, losses.contrastive)
    ranked = layers.figures(model, forget, retain)
    front = [layer for part in layers.fronts(ranked, plan.fronts).values() for layer in part]
    return over_layers(model, evaluator, front, forget, plan)


def over_layers(
    model: Any,
    evaluator: Any,
    front: Iterable[Layer],
    forget: Gradient,
    plan: Plan,
    *,
    best: Candidate | None = None,
    done: Iterable[tuple[str, ...]] = (),
    settled: Callable[[Candidate | None], bool] = lambda best: False,
) -> Found:
    """Search the step of every layer of `front`, each group of tensors once.

    Args:
        best: a candidate that the new ones have to beat.
        done: groups that were searched before.
        settled: whether the best candidate so far cannot be beaten any more; asked after each, and then the search ends.
    """
    curves: dict[str, list[Candidate]] = {}
    searched = set(done)
    for name, group in layers.groups(model, front, alone=plan.alone, together=plan.together):
        if group in searched:
            continue
        searched.add(group)
        curves[name] = []
        for candidate in over_steps(model, evaluator, name, group, forget, plan, best):
            curves[name].append(candidate)
            best = selection.winner([best, candidate])
            if settled(best):
                return Found(curves, best)
    if plan.choose == "deepest":
        best = selection.deepest(Found(curves, best).candidates, lambda layer: layers.depth_order(model, layer))
    return Found(*selection.spare(curves, best, lambda edit: evaluator.score(edit, log_all=True)))


def front_by_front(
    model: Any, evaluator: Any, ranked: list[Layer], forget: Gradient, plan: Plan, enough: Callable, **how: Any
) -> Found:
    """Search Pareto front after Pareto front of one encoder, `plan.fronts` at most, until a winner is good `enough`.

    Args:
        how: `best` and `settled` of `over_layers`.
    """
    found = Found({}, how.pop("best", None))
    for front in layers.all_fronts(ranked)[: plan.fronts]:
        if plan.deepest_first:
            front = sorted(front, key=lambda layer: layers.depth_order(model, layer.name), reverse=True)
        done = [model.group(name) for name in found.curves]
        new = over_layers(model, evaluator, front, forget, plan, best=found.winner, done=done, **how)
        found = Found(found.curves | new.curves, new.winner)
        if found.winner is not None and enough(found.winner):
            break
    return found


def over_steps(
    model: Any,
    evaluator: Any,
    name: str,
    group: tuple[str, ...],
    forget: Gradient,
    plan: Plan,
    best: Candidate | None = None,
) -> Iterator[Candidate]:
    """Search the step of one layer: lambda_0 is a 10% relative change, and a POSITIVE step adds the forget gradient."""
    first = plan.schedule.scale * layers.first_step([model.parameters[n] for n in group], [forget[n] for n in group])

    def evaluate(step: float, coming: list[float]) -> tuple[Candidate, float]:
        nonlocal best
        if len(coming) > 1:
            evaluator.look_ahead(Edit.along(model, name, forget, 1.0, group), coming)
        # A layer that loses overall may still be the deepest that forgets: then every candidate is scored in full.
        beat = best if plan.choose == "retain" else None
        candidate = evaluator.score(Edit.along(model, name, forget, step, group), beat, log_all=plan.log_all)
        best = selection.winner([best, candidate])
        return candidate, candidate.progress

    yield from search.over_layer(evaluate, first, plan.schedule)
