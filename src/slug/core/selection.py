"""Which candidate to keep: one record of a candidate, and the rule by which every method is chosen."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slug.core.edit import Edit
from slug.settings import MAX_FORGET, SIGMAS


def below(margin: float, margin_sd: float, sigmas: float) -> bool:
    """Whether margins lie `sigmas` standard deviations below 0; unknown margins (NaN) count as if they did.

    Of a few pictures none may be recognised although all of them nearly are.
    """
    return not margin + sigmas * margin_sd > 0


def forgets(accuracy: float, margin: float, margin_sd: float, *, most: float = MAX_FORGET, sigmas: float = SIGMAS) -> bool:
    """Whether a name is forgotten, by its accuracy and by its margins.

    A few dozen pictures cannot show 2%: where none of 25 is recognised, the true accuracy may still be 11%. So the margins
    must also lie `sigmas` standard deviations below 0. For normal margins 2 deviations would do for 2%, but the source
    images of another split differ more from those of this split than these do among themselves.
    """
    return accuracy <= most + 1e-9 and below(margin, margin_sd, sigmas)


@dataclass(frozen=True)
class Rule:
    """When a name counts as forgotten, and which candidate is kept.

    Attributes:
        most, sigmas: see `forgets`.
        margins: whether a name is forgotten by `forgets`; otherwise FA@k = 0 is enough, as published.
        first_zero: keep the first candidate of the lowest forget accuracy @1, whatever it retains: the published choice
            among the epochs of a baseline.
        retained_first: keep the candidate that retains most, whatever it forgets.
    """

    most: float = MAX_FORGET
    sigmas: float = SIGMAS
    margins: bool = True
    first_zero: bool = False
    retained_first: bool = False

    @property
    def words(self) -> str:
        """When a name counts as forgotten, in words."""
        if self.retained_first:
            return "none: what retains most is kept"
        margins = f"at most {100 * self.most:g}% recognised, margins {self.sigmas:g} standard deviations below 0"
        return "" if self == STANDARD else margins if self.margins else "FA@k = 0"

    def forgotten(self, scores: Mapping[str, Any]) -> bool:
        """Whether the name is forgotten by these scores (see evaluation.clip_evaluator.forget_scores)."""
        if not self.margins:
            return scores["forget_acck"] == 0
        how = {"most": self.most, "sigmas": self.sigmas}
        return forgets(scores["forget_acc1"], scores["margin"], scores["margin_sd"], **how)

    def preference(self, *, accuracy: float, **figures: Any) -> tuple[float, ...]:
        """What `winner` compares (see the function `preference`, whose arguments these are)."""
        if self.retained_first:
            return (-1.0 if math.isnan(figures["retained"]) else figures["retained"], -accuracy)
        return (-accuracy,) if self.first_zero else preference(accuracy=accuracy, **figures)


STANDARD = Rule()


@dataclass(frozen=True, eq=False)
class Candidate:
    """One edit with its figures on the validation split; every model family has the same record.

    Attributes:
        edit: the edit.
        scores: {column: value} of the family's tables: fractions unless the name says otherwise, NaN where not evaluated.
        forgotten: whether the concept counts as forgotten.
        progress: 1 where the step goes far enough, else how far it got; the step search follows it.
        retained: mean retained accuracy; NaN where not evaluated.
        preference: the candidate with the greatest tuple is kept; None for one that must not be kept.
        trace_s: seconds spent on figures for plots alone, which are no part of a search's time.
    """

    edit: Edit
    scores: Mapping[str, Any]
    forgotten: bool
    progress: float
    retained: float
    preference: tuple[float, ...] | None
    trace_s: float = 0.0

    @property
    def layer(self) -> str:
        """The layer that the edit moves, or what else made it."""
        return self.edit.layer

    @property
    def step(self) -> float:
        """The step size (of a trained baseline: the number of the candidate)."""
        return self.edit.step

    def row(self) -> dict[str, Any]:
        """The columns of a table of candidates."""
        return {"layer": self.layer, "step": self.step, **self.scores}


def preference(*, forgotten: bool, retained: float, accuracy: float, margin: float, step: float) -> tuple[float, ...]:
    """What `winner` compares: among candidates that forget, the highest retained accuracy; else the lowest forget accuracy,
    and of several with that one the highest retained accuracy where it is known.

    Ties go to the lower margin of the forgotten name, that is to the more complete forgetting, then to the smaller step.
    Where the name is not forgotten they go to the higher margin: the lowest one is that of the most damaged model.
    """
    if forgotten and not math.isnan(retained):
        return (1, retained, -margin, -step)
    return (0, -accuracy, -1.0 if math.isnan(retained) else retained, margin, -step)


def winner(candidates: Iterable[Candidate | None]) -> Candidate | None:
    """The candidate to keep, the first of several equals; None where there is none. Every method is chosen by this rule over
    all its candidates; all figures are of the validation split."""
    best: Candidate | None = None
    for candidate in candidates:
        if candidate is None or candidate.preference is None:
            continue
        if best is None or best.preference is None or candidate.preference > best.preference:
            best = candidate
    return best


def unsettled(candidate: Candidate, best: Candidate | None) -> bool:
    """Whether a candidate that does not forget may be what a method falls back to where none forgets: its forget accuracy
    is no higher than that of the best so far, and its retained accuracy, which decides among equals, was left out."""
    if candidate.forgotten or candidate.preference is None or not math.isnan(candidate.retained):
        return False
    return best is None or best.preference is None or candidate.preference[:2] >= best.preference[:2]


def spare(
    curves: Mapping[str, list[Candidate]], best: Candidate | None, score: Callable[[Edit], Candidate]
) -> tuple[dict[str, list[Candidate]], Candidate | None]:
    """(curves, winner) where the winner of a search, `best`, does not forget: retained accuracy, which the search left out,
    is scored for all that share the lowest forget accuracy, and the one that retains most is kept.

    Args:
        curves: {layer: candidates}.
        score: scores everything of an edit.
    """
    if best is None or best.forgotten or best.preference is None:
        return dict(curves), best
    scored = {id(c): score(c.edit) for c in itertools.chain(*curves.values()) if unsettled(c, best)}
    known = {layer: [scored.get(id(c), c) for c in curve] for layer, curve in curves.items()}
    return known, winner([scored.get(id(best), best), *itertools.chain(*known.values())])


def deepest(candidates: list[Candidate], order: Callable[[str], Any]) -> Candidate | None:
    """The paper's choice of the layer: of the layers that forget at all, the deepest; its best step by `winner`.

    Args:
        order: layer name -> its position in the model.
    """
    passing = [c for c in candidates if c.forgotten]
    if not passing:
        return winner(candidates)
    layer = max({c.layer for c in passing}, key=order)
    return winner([c for c in candidates if c.layer == layer])


def fa_rank(names: int) -> int:
    """The k of FA@k that brackets the step: 5 for the paper's 10,177 names, 1 for small worlds, where chance FA@5 is
    high."""
    return max(1, round(5 * names / 10177))
