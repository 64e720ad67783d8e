"""The step size of each layer, and the winner among all steps of all layers.

The published search doubles a step while the name is still recognised and bisects once it is not. It trusts the latest
answer only; a forget accuracy that rises again with the step, or a first step that already breaks the model, sends it
astray (trap 11). `next_step` looks at all answers so far instead, and shrinks as fast as it grows.
"""

import itertools
import math
from typing import NamedTuple

MAX_FORGET = 0.02  # forget accuracy on the select half up to which a step counts as forgetting
# Deviations the margins lie below 0. A normal fit would ask for 2 to keep MAX_FORGET; other drawings than those of the
# select half differ by more than its pictures do among themselves (settled on names that no reference run reports).
SIGMAS = 3.5
FAR = 16  # first steps, 160% of the weights' norm: where none up to here forgets, look below the first step instead
CLOSE = 1.1  # stop bisecting when the bracket is this narrow (ratio of its ends)


def below(margin, margin_sd, sigmas):
    """Whether margins lie that many standard deviations below 0; where there are none (NaN), nothing speaks against it.

    Of few pictures none may be recognised and all be on the brink.
    """
    return not margin + sigmas * margin_sd > 0


class Step(NamedTuple):
    """One evaluation of one layer on the select half. Accuracies are fractions; NaN where not evaluated."""

    layer: str
    step: float
    forget_acc1: float
    forget_acc5: float
    identities_acc1: float = math.nan
    identities_acc5: float = math.nan
    objects_acc1: float = math.nan
    objects_acc5: float = math.nan
    forget_acck: float = math.nan  # at the k that brackets the step
    margin: float = math.nan  # mean over the forget pictures of cosine to their name less that to the best other name
    margin_sd: float = math.nan
    mia_mean: float = math.nan  # %
    mia_std: float = math.nan
    identities_trace: float = math.nan  # top-1 on the few pictures that every step is scored on where a plot asks for it
    objects_trace: float = math.nan
    seconds: float = math.nan

    @property
    def forgets(self):
        """Whether the name is forgotten, on the select half: FA@1 of at most MAX_FORGET, as counted and as estimated.

        A few dozen pictures cannot show 2%: none of 25 may still be 11%. So the margins must also lie SIGMAS deviations
        below 0, which they do not where a zero sits on the brink: the other half's 40 pictures should hold none either.
        """
        return self.forgets_by(SIGMAS)

    def forgets_by(self, sigmas):
        """`forgets` with the margins that many deviations below 0."""
        return self.forget_acc1 <= MAX_FORGET and below(self.margin, self.margin_sd, sigmas)

    def progress(self, rule):
        """What `next_step` is told: yes or no (`rule` as there)."""
        return self.forget_acck == 0 and (rule == "paper" or self.forgets)

    @property
    def retain(self):
        """What a step is chosen by: the mean of the two retain accuracies."""
        return (self.identities_acc1 + self.objects_acc1) / 2


def next_step(history, first, *, rule="robust", growth=2, far=FAR, below=True):
    """The step to evaluate next.

    Args:
        history: [(step, forgotten)] so far, in order; `forgotten` is FA@k == 0, and for the robust rule Step.forgets. Where
            it does not forget, the robust rule takes a number below 1 as how far it got.
        first: the first step, used when the history is empty.
        rule: "robust", or "paper" for the published schedule.
        growth: robust only: how many times the last step the next one is while nothing is forgotten.
        far: robust only: a step of so many times the first is the last that is tried upwards. After it comes what lies
            beside the step that got furthest, or below them all where none got further than the smallest.
        below: robust only: False to end the search there instead.
    Returns:
        A step > 0, or None when the bracket is narrow enough (robust only).
    """
    if not history:
        return first
    if rule == "paper":
        low, high = 0.0, math.inf
        for step, forgotten in history:
            low, high = (low, step) if forgotten >= 1 else (step, high)
        return history[-1][0] * 2 if high == math.inf else (low + high) / 2
    forgetting = [s for s, forgotten in history if forgotten >= 1]
    if not forgetting:
        # A step so large that the model knows nothing any more need not read as forgotten.
        tried = sorted(s for s, _ in history)
        if tried[-1] < far * first:
            return growth * tried[-1]
        furthest, _ = max(history, key=lambda h: (h[1], -h[0]))
        if furthest == tried[0]:
            return furthest / 4 if below else None
        gaps = [(high / low, low * high) for low, high in itertools.pairwise(tried) if furthest in (low, high)]
        ratio, product = max(gaps)
        return math.sqrt(product) if ratio > CLOSE else None
    high = min(forgetting)
    low = max((s for s, forgotten in history if forgotten < 1 and s < high), default=None)
    if low is None:  # still forgetting at the smallest step: down by 2, 4, 16, 256, ... the quicker the longer it lasts
        return high / 2 ** (2 ** (len(forgetting) - 1) if len(forgetting) < 4 else 4)
    return math.sqrt(low * high) if high / low > CLOSE else None


def ahead(history, first, depth, *, rule="robust", **reach):
    """The steps that `next_step` may ask for in the next `depth` evaluations, the very next one first."""
    step = next_step(history, first, rule=rule, **reach) if depth else None
    if step is None:
        return []
    later = (ahead([*history, (step, forgotten)], first, depth - 1, rule=rule, **reach) for forgotten in (True, False))
    return list(dict.fromkeys([step, *itertools.chain(*later)]))


def over_layer(evaluate, first, *, evaluations=10, rule="robust", depth=1, **reach):
    """Evaluate up to `evaluations` steps of one layer; yields what `evaluate(step, coming)` returns.

    Args:
        evaluate: (step, steps that may come next, itself among them) -> (result, forgotten as in `next_step`).
        first: first step (layers.first_step).
        reach: `growth`, `far` and `below` of `next_step`.
        depth: evaluations to look ahead, see `ahead`; what is evaluated, and the result, do not depend on it.
    """
    history = []
    while len(history) < evaluations:
        step = next_step(history, first, rule=rule, **reach)
        if step is None or not math.isfinite(step) or step <= 0:
            break
        coming = ahead(history, first, min(depth, evaluations - len(history)), rule=rule, **reach)
        result, forgotten = evaluate(step, coming)
        history.append((step, forgotten))
        yield result


def winner(candidates):
    """The candidate to keep: among those that forget (Step.forgets) the one with the highest retain accuracy; if there is
    none, the one with the lowest forget accuracy. Ties go to the lower margin of the forgotten name, that is to the more
    complete forgetting, then to the smaller step.

    Every method is chosen by this rule over all its candidates; all figures are of the select half.
    """
    if not candidates:
        return None
    passing = [c for c in candidates if c.forgets and not math.isnan(c.retain)]
    if passing:
        return min(passing, key=lambda c: (-c.retain, c.margin, c.step))
    return min(candidates, key=lambda c: (c.forget_acc1, c.margin, c.step))


def deepest(candidates, order):
    """The paper's rule: of the layers that forget at all, the deepest; its best step by `winner`.

    Args:
        order: layer name -> position in the model.
    """
    passing = [c for c in candidates if c.forgets]
    if not passing:
        return winner(candidates)
    layer = max({c.layer for c in passing}, key=order)
    return winner([c for c in candidates if c.layer == layer])


def fa_rank(names):
    """The k of FA@k that brackets the step: 5 for the paper's 10,177 names, 1 for small worlds (DESIGN.md)."""
    return max(1, round(5 * names / 10177))


def beyond(grid, chosen, asked, grow):
    """The settings half a decade beyond an end of `grid` at which one of `chosen` lies, `grow` half decades at most.

    Args:
        grid, chosen: settings.
        asked: the settings the user asked for; `grow` counts from these.
    """
    low, high = min(asked) * 10 ** (-grow / 2), max(asked) * 10 ** (grow / 2)
    ends = [c / math.sqrt(10) for c in chosen if c == min(grid)] + [c * math.sqrt(10) for c in chosen if c == max(grid)]
    return sorted({float(f"{e:.1e}") for e in ends if 0.9 * low < e < 1.1 * high}) if len(asked) > 1 else []


def growing(asked, grow, chosen):
    """Yield the settings of `asked`, then what lies `beyond` as long as a chosen one lies at an end of what was yielded.

    Args:
        asked, grow: see `beyond`.
        chosen: () -> the settings that are chosen among all yielded so far.
    """
    grid = fresh = list(asked)
    while fresh:
        yield from fresh
        fresh = beyond(grid, chosen(), asked, grow)
        grid = sorted({*grid, *fresh})


def inside(grid, chosen):
    """Whether a setting lies between others of its grid; None of a single one."""
    return min(grid) < chosen < max(grid) if len(grid) > 1 else None
