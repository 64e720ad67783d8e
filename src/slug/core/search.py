"""The step size of a layer: which steps are evaluated, one after the other (paper, section 3).

The published schedule doubles a step while the name is still recognised and bisects once it is not. It trusts the latest
answer only, so it goes astray where the forget accuracy rises again with the step, or where the first step already breaks
the model. The robust schedule looks at all answers so far, and shrinks as fast as it grows.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from slug.core.selection import Candidate

Result = TypeVar("Result")
# (step, progress): 1 where the step forgets, above 1 where the layer's search is to end with it, else a part of the way
History = list[tuple[float, float]]
CLOSE = 1.1  # bisection stops when the ends of the bracket differ by no more than this factor


@dataclass(frozen=True)
class Schedule:
    """How steps follow each other.

    Attributes:
        rule: "robust"; "paper" for the published schedule; or "bracket" for that of pipelines in the published code, which
            halves a bracket that ends at `far` first steps. All other attributes but the last two concern the robust one.
        growth: factor from one step to the next while nothing is forgotten.
        far: the largest step that is tried upwards, in first steps (16 of them are 160% of the weights' norm). Then the
            search goes on beside the step that made most progress, or below all of them where that was the smallest.
        below: whether the search goes on below all steps in that case; otherwise it ends.
        lookahead: evaluations to look ahead: the forget pictures are scored under all steps that these may ask for in one
            pass.
        evaluations: steps of a layer, at most.
        scale: factor on the first step.
    """

    rule: str = "robust"
    growth: float = 2
    far: float = 16
    below: bool = True
    lookahead: int = 1
    evaluations: int = 10
    scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """What is searched, besides the schedule of the steps.

    Attributes:
        fronts: number of Pareto fronts of each encoder that are searched.
        choose: "retain" for the highest retained accuracy, "deepest" for the deepest layer that forgets (paper).
        log_all: score every column of every candidate.
        alone: search the members of a group (q, k, v; fc1, fc2) also one by one.
        together: one search that moves all layers by one step (the paper found this worse than one layer).
        deepest_first: begin with the deepest layer of a front. Where these tend to win, the others are given up sooner; the
            result is the same.
    """

    fronts: int = 1
    choose: str = "retain"
    log_all: bool = False
    alone: bool = False
    together: bool = False
    deepest_first: bool = False
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True)
class Found:
    """What a search found: {layer: its candidates in order}, and the winner (None where no candidate may be kept)."""

    curves: dict[str, list[Candidate]]
    winner: Candidate | None

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates in the order of the search."""
        return [c for curve in self.curves.values() for c in curve]


def next_step(history: History, first: float, schedule: Schedule = Schedule()) -> float | None:
    """The step to evaluate next, above 0; None where the latest ends the search or the bracket is narrow enough (robust).

    Args:
        history: all evaluations so far, in their order.
        first: the first step.
    """
    if not history:
        return first
    if history[-1][1] > 1:
        return None
    return _robust(history, first, schedule) if schedule.rule == "robust" else _published(history, first, schedule)


def _published(history: History, first: float, schedule: Schedule) -> float:
    low, high = 0.0, schedule.far * first if schedule.rule == "bracket" else math.inf
    for step, progress in history:
        low, high = (low, step) if progress >= 1 else (step, high)
    return history[-1][0] * 2 if high == math.inf else (low + high) / 2


def _robust(history: History, first: float, schedule: Schedule) -> float | None:
    forgetting = [step for step, progress in history if progress >= 1]
    if not forgetting:
        # A step so large that the model knows nothing any more need not read as forgetting.
        tried = sorted(step for step, _ in history)
        if tried[-1] < schedule.far * first:
            return schedule.growth * tried[-1]
        furthest, _ = max(history, key=lambda h: (h[1], -h[0]))
        if furthest == tried[0]:
            return furthest / 4 if schedule.below else None
        gaps = [(high / low, low * high) for low, high in itertools.pairwise(tried) if furthest in (low, high)]
        ratio, product = max(gaps)
        return math.sqrt(product) if ratio > CLOSE else None
    high = min(forgetting)
    low = max((step for step, progress in history if progress < 1 and step < high), default=None)
    if low is None:  # the smallest step still forgets: divide by 2, 4, 16, 256, ..., the faster the longer this lasts
        return high / 2 ** (2 ** (len(forgetting) - 1) if len(forgetting) < 4 else 4)
    return math.sqrt(low * high) if high / low > CLOSE else None


def ahead(history: History, first: float, depth: int, schedule: Schedule) -> list[float]:
    """The steps that `next_step` may ask for in the next `depth` evaluations, the very next one first."""
    step = next_step(history, first, schedule) if depth else None
    if step is None:
        return []
    later = (ahead([*history, (step, progress)], first, depth - 1, schedule) for progress in (True, False))
    return list(dict.fromkeys([step, *itertools.chain(*later)]))


def over_layer(
    evaluate: Callable[[float, list[float]], tuple[Result, float]], first: float, schedule: Schedule
) -> Iterator[Result]:
    """Evaluate the steps of one layer; yields the results in order.

    Args:
        evaluate: (step, steps that may come next, itself among them) -> (result, progress).
        first: the first step (see layers.first_step).
    """
    history: History = []
    while len(history) < schedule.evaluations:
        step = next_step(history, first, schedule)
        if step is None or not math.isfinite(step) or step <= 0:
            break
        depth = min(schedule.lookahead, schedule.evaluations - len(history))
        result, progress = evaluate(step, ahead(history, first, depth, schedule))
        history.append((step, progress))
        yield result
