"""Verdicts on the paper's claims by one rule, from the table of a study's runs.

A claim is one or more comparisons of variants, a comparison a few statements on forgetting and retaining. A statement
looks at how many points better the first variant is on each name: at the mean and its 95% t interval over names.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from slug.evaluation import statistics
from slug.reports import intervals, ranking, rules
from slug.schema import STANDARD, STUDY_VARIANTS

FORGETTING, RETAINING = "forgetting", "retaining"
MARGINS = {FORGETTING: 2.0, RETAINING: 1.0}  # points
ORIGINAL, LIMIT = "original", "limit"  # in place of a variant: the unedited model; what a forgotten name may come to
AS_GOOD, BETTER, SAME = "as good", "better", "the same"
HOLDS, FAILS, OPEN = "holds", "fails", "not resolved"


class Result(NamedTuple):
    """What became of a statement: HOLDS, FAILS or OPEN; the mean difference and its interval in points; how many names.

    Attributes:
        median: of the differences.
        won, lost: names on which ours is better, and worse; the others are ties.
        p: two-sided sign test of won against lost.
        headroom: how much better ours could be in the mean, with nothing recognised or nothing lost.
    """

    verdict: str
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    names: int = 0
    median: float = math.nan
    won: int = 0
    lost: int = 0
    p: float = math.nan
    headroom: float = math.nan


class Statement(NamedTuple):
    """The variant `ours` is AS_GOOD as `theirs`, BETTER or the SAME, at forgetting or at retaining."""

    ours: str
    theirs: str
    figure: str
    how: str = AS_GOOD


class Comparison(NamedTuple):
    """Holds if all of `needs` hold and, if there are `gains`, one of them; fails if one of `needs` or all `gains` fail."""

    needs: tuple[Statement, ...]
    gains: tuple[Statement, ...] = ()

    def verdict(self, results: Iterable[Result]) -> str:
        """HOLDS, FAILS or OPEN by the results of `needs`, followed by those of `gains`."""
        found = [r.verdict for r in results]
        needs, gains = found[: len(self.needs)], found[len(self.needs) :]
        if FAILS in needs or (gains and set(gains) == {FAILS}):
            return FAILS
        return HOLDS if set(needs) == {HOLDS} and (HOLDS in gains or not gains) else OPEN


class Claim(NamedTuple):
    """What is claimed, by whom, and the comparisons that test it here."""

    says: str
    source: str
    comparisons: tuple[Comparison, ...]


QUESTIONS = {  # the variants by what they ask, in few words; in full they stand in schema.STUDY_VARIANTS
    "one layer, or more?": {"front_together": "both Pareto fronts together", "all_together": "all layers together"},
    "how are layers ranked?": {"importance": "by importance only", "alignment": "by alignment only"},
    "which encoder?": {"vision": "vision only", "language": "language only"},
    "how are steps searched?": {
        "first_tenth": "first step \u00d7 0.1",
        "first_tenfold": "first step \u00d7 10",
        "bracket": "as published",
        "evaluations_5": "5 evaluations a layer",
        "evaluations_20": "20 evaluations a layer",
    },
    "how large a forget set?": {
        "renderings_1": "1 rendering a drawing",
        "renderings_5": "5 renderings a drawing",
        "drawings_1": "1 drawing",
        "drawings_2": "2 drawings",
    },
    "how large a retain set?": {"retain_10": "10%", "retain_30": "30%", "retain_30_again": "another 30%"},
    "which layer is chosen?": {"deepest": "the deepest that forgets", "rounds_3": "three layers in turn"},
}


def as_good(ours: str, theirs: str) -> Comparison:
    """`ours` forgets and retains as well."""
    return Comparison(tuple(Statement(ours, theirs, figure) for figure in MARGINS))


def retains_more(ours: str, theirs: str) -> Comparison:
    """`ours` retains more, and forgets as well."""
    return Comparison((Statement(ours, theirs, FORGETTING), Statement(ours, theirs, RETAINING, BETTER)))


def better(ours: str, theirs: str) -> Comparison:
    """`ours` forgets and retains as well, and is better at one of the two."""
    return Comparison(as_good(ours, theirs).needs, tuple(Statement(ours, theirs, figure, BETTER) for figure in MARGINS))


def same(ours: str, theirs: str) -> Comparison:
    """It makes no difference, either way."""
    return Comparison(tuple(Statement(ours, theirs, figure, SAME) for figure in MARGINS))


PAPER, FOLLOW_UP, ASKED = "paper", "RAZOR", "asked here"
CLAIMS = (
    Claim("One step on one layer forgets the name", PAPER, (Comparison((Statement(STANDARD, LIMIT, FORGETTING),)),)),
    Claim("It keeps the retained accuracy", PAPER, (Comparison((Statement(STANDARD, ORIGINAL, RETAINING),)),)),
    Claim("One layer retains more than all of both Pareto fronts", PAPER, (retains_more(STANDARD, "front_together"),)),
    Claim("One layer retains more than all layers", PAPER, (retains_more(STANDARD, "all_together"),)),
    Claim("Importance and alignment rank layers better than importance only", PAPER, (better(STANDARD, "importance"),)),
    Claim("Importance and alignment rank layers better than alignment only", PAPER, (better(STANDARD, "alignment"),)),
    Claim("The vision tower alone is enough", ASKED, (as_good("vision", STANDARD),)),
    Claim("The language tower alone is enough", ASKED, (as_good("language", STANDARD),)),
    Claim("The vision tower alone does better than the language tower alone", ASKED, (better("vision", "language"),)),
    Claim(
        "The size of the first step hardly matters", ASKED, (same("first_tenth", STANDARD), same("first_tenfold", STANDARD))
    ),
    Claim("Ten evaluations on each layer are enough", PAPER, (as_good(STANDARD, "evaluations_20"),)),
    Claim("The published search finds as good a step as ours", PAPER, (as_good("bracket", STANDARD),)),
    Claim("Five evaluations on each layer are enough", ASKED, (as_good("evaluations_5", STANDARD),)),
    Claim(
        "A few renderings of each drawing are a sufficient forget set",
        ASKED,
        (as_good("renderings_1", STANDARD), as_good("renderings_5", STANDARD)),
    ),
    Claim(
        "A few distinct drawings are a sufficient forget set",
        ASKED,
        (as_good("drawings_1", STANDARD), as_good("drawings_2", STANDARD)),
    ),
    Claim("A smaller retain set is enough", ASKED, (as_good("retain_10", STANDARD), as_good("retain_30", STANDARD))),
    Claim("Which part of the retain set is used hardly matters", ASKED, (same("retain_30_again", "retain_30"),)),
    Claim("The deepest layer that forgets is as good a choice as ours", PAPER, (as_good("deepest", STANDARD),)),
    Claim("Several rounds over several layers retain more than one layer", FOLLOW_UP, (retains_more("rounds_3", STANDARD),)),
)
_RULE = (
    "Rule: each name is compared with itself. Differences are in points; positive ones favour the variant named first. "
    "The interval is the 95% t interval of the mean difference over names. Forgetting is the top-1 accuracy on the "
    f"name's pictures (margin {MARGINS[FORGETTING]:g} points). Retaining is the mean change of the top-1 accuracies on "
    f"other identities and other objects (margin {MARGINS[RETAINING]:g} point). *As good* holds if the interval lies "
    "above minus the margin, and fails if it lies below. *Better* holds if it lies above 0, and fails if it lies below "
    "the margin; where the other variant leaves less than a margin to win (*headroom*: what it still recognises, or "
    "what it loses), it fails only if the interval ends at 0 or below. The median, the names won and lost and a "
    "two-sided sign test stand beside the mean, and decide nothing. *The same* holds if it lies within the margin "
    "either way, and fails if it lies beyond. A name counts as forgotten if the interval of the mean accuracy and the "
    "exact interval of all pictures together both end at {limit} or below. Of statements joined by *or*, one is enough; "
    "of all others every one is needed. A claim *holds* if all its comparisons hold, *does not hold here* if all fail, "
    "*holds in part* if some hold and some fail, and is *not resolved* otherwise."
)


def rule(frame: pd.DataFrame) -> str:
    """How verdicts on a study are found, in words."""
    return _RULE.format(limit=f"{100 * rules.max_forget(frame):g}%")


def finished(frame: pd.DataFrame, variant: str) -> pd.DataFrame:
    """A variant's runs that did not fail, by name."""
    return frame[(frame["variant"] == variant) & frame["error"].isna()].set_index("name")


def values(frame: pd.DataFrame, variant: str, figure: str) -> pd.Series:
    """A figure of a variant's finished runs by name, in points; higher is better."""
    rows = finished(frame, STANDARD if variant == ORIGINAL else variant)
    if figure == FORGETTING:
        return -100 * rows["forget_acc1"]
    found = 50 * (rows["identities_change"] + rows["objects_change"])
    return 0 * found if variant == ORIGINAL else found


def within_limit(rows: pd.DataFrame) -> Result:
    """Whether names are forgotten, down to the limit of their runs: the percentage still recognised.

    Its interval has the wider ends of the mean's t interval over names and of the exact interval of all pictures together,
    which also tells what a zero is worth.
    """
    if rows.empty:
        return Result(OPEN)
    mean, low, high = intervals.points(rows["forget_acc1"])
    ends = statistics.interval(round((rows["forget_acc1"] * rows["n_forget"]).sum()), int(rows["n_forget"].sum()))
    low, high = max(0.0, np.nanmin([low, 100 * ends[0]])), np.nanmax([high, 100 * ends[1]])
    limit = 100 * rules.max_forget(rows)
    return Result(HOLDS if high <= limit else FAILS if low > limit else OPEN, mean, low, high, len(rows))


def compare(frame: pd.DataFrame, statement: Statement) -> Result:
    """What becomes of a statement over the names that have both variants; fewer than two names resolve nothing."""
    ours, theirs, figure, how = statement
    if theirs == LIMIT:
        return within_limit(finished(frame, ours))
    differences = (values(frame, ours, figure) - values(frame, theirs, figure)).dropna()
    if differences.empty:
        return Result(OPEN)
    mean, low, high = intervals.mean_interval(differences)
    margin, headroom = MARGINS[figure], -values(frame, theirs, figure)[differences.index].mean()
    # Where theirs leaves less than a margin to win, an advantage below the margin is all that there could be.
    no_better = high < margin if headroom >= margin else high <= 1e-9
    holds = {AS_GOOD: low > -margin, BETTER: low > 0, SAME: low > -margin and high < margin}[how]
    fails = {AS_GOOD: high < -margin, BETTER: no_better, SAME: high < -margin or low > margin}[how]
    won, lost = int((differences > 1e-9).sum()), int((differences < -1e-9).sum())
    more = (float(differences.median()), won, lost, ranking.sign_test(won, lost), headroom)
    # Without an interval neither comes true.
    return Result(HOLDS if holds else FAILS if fails else OPEN, mean, low, high, len(differences), *more)


def against_standard(frame: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """{figure: {variant: points by name, the variant's less the standard's}} for the variants that were run."""
    run = [v for v in STUDY_VARIANTS if v != STANDARD and v in set(frame["variant"])]
    found = {}
    for figure in MARGINS:
        standard = values(frame, STANDARD, figure)
        differences = {v: (values(frame, v, figure) - standard).dropna() for v in run}
        found[figure] = {v: d for v, d in differences.items() if len(d)}
    return found


def verdict(found: Sequence[str]) -> str:
    """A claim's verdict by those of its comparisons."""
    if {HOLDS, FAILS} <= set(found):
        return "holds in part"
    if OPEN in found:
        return "not resolved"
    return "holds" if set(found) == {HOLDS} else "does not hold here"
