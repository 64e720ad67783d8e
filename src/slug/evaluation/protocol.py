"""What the search needs of an evaluator, and the one early stop that all of them share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from slug.core.edit import Edit
from slug.core.selection import Candidate

TOLERANCE = 1e-6  # accuracies are means in float32: a tie must not read as a loss


class Evaluator(Protocol):
    """Scores edits of one model for one concept on one split: of a CLIP, of a pipeline, of an assistant."""

    @property
    def start(self) -> Candidate:
        """The unedited model, everything scored."""

    def score(self, edit: Edit, best: Candidate | None = None, *, log_all: bool = False) -> Candidate:
        """The candidate of an edit. Retained tasks are scored only where it forgets and can still win against `best`, or
        where `log_all` asks for everything."""

    def look_ahead(self, direction: Edit, steps: Sequence[float]) -> None:
        """Score the forget pictures under several steps of an edit in one pass, for the calls of `score` that follow."""


class Bounds(NamedTuple):
    """Upper bounds of accuracies, {task: fraction}; the accuracies themselves where all was scored."""

    values: dict[str, float]
    complete: bool
    above_floors: bool = True


def score_while_it_can_win(
    rounds: Iterable[Mapping[str, torch.Tensor]],
    sizes: Mapping[str, int],
    *,
    beat: float = -math.inf,
    floors: Mapping[str, float] | None = None,
) -> Bounds:
    """Score tasks part by part, and stop as soon as their mean accuracy cannot reach `beat` or one falls below its floor.

    All that is correct so far plus all that is left is an exact upper bound of an accuracy, so the winner is the same as
    without stopping. What is likely to be wrong should come first: the bounds then fall early.

    Args:
        rounds: {task: (n,) bool, whether each item of the next part is correct}, computed when it is asked for.
        sizes, floors: {task: items in all}, {task: accuracy that must remain}.
    """
    wrong, bounds = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 1.0)
    for part in rounds:
        for task, right in part.items():
            wrong[task] += int((~right).sum())
            bounds[task] = 1 - wrong[task] / sizes[task]
        if any(bounds[task] < floor for task, floor in (floors or {}).items()):
            return Bounds(bounds, False, above_floors=False)
        if sum(bounds.values()) / len(bounds) < beat - TOLERANCE:
            return Bounds(bounds, False)
    return Bounds(bounds, True)
