"""Which candidate to keep: the rule that every method is chosen by."""

import math
from typing import NamedTuple

MAX_FORGET = 0.02  # forget accuracy on the validation split up to which a step counts as forgetting


# Deviations the margins lie below 0. A normal fit would ask for 2 to keep MAX_FORGET; other drawings than those of the
# validation split differ by more than its pictures do among themselves (settled on names that no reference run reports).
SIGMAS = 3.5


def below(margin, margin_sd, sigmas):
    """Whether margins lie that many standard deviations below 0; where there are none (NaN), nothing speaks against it.

    Of few pictures none may be recognised and all be on the brink.
    """
    return not margin + sigmas * margin_sd > 0


class Step(NamedTuple):
    """One evaluation of one layer on the validation split. Accuracies are fractions; NaN where not evaluated."""

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
        """Whether the name is forgotten, on the validation split: FA@1 of at most MAX_FORGET, as counted and as estimated.

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


def winner(candidates):
    """The candidate to keep: among those that forget (Step.forgets) the one with the highest retain accuracy; if there is
    none, the one with the lowest forget accuracy. Ties go to the lower margin of the forgotten name, that is to the more
    complete forgetting, then to the smaller step.

    Every method is chosen by this rule over all its candidates; all figures are of the validation split.
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
