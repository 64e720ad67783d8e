"""What a study says of the paper's claims: verdicts by one rule, from the table of runs. Knows no models.

A claim is one comparison of two variants or several, a comparison a few statements on forgetting and retaining. A statement
looks at how many points better the first variant is on each name, at the mean of that and its 95% t interval over names.
"""

import math
from typing import NamedTuple

import numpy as np

from slug.core import selection
from slug.evaluation import statistics
from slug.experiments import study
from slug.reports import report

FORGETTING, RETAINING = "forgetting", "retaining"
MARGINS = {FORGETTING: 2.0, RETAINING: 1.0}  # points
ORIGINAL, LIMIT = "original", "limit"  # in a variant's place: the unedited model; a forget accuracy of search.MAX_FORGET
AS_GOOD, BETTER, SAME = "as good", "better", "the same"
HOLDS, FAILS, OPEN = "holds", "fails", "not resolved"


class Statement(NamedTuple):
    """The variant `ours` is AS_GOOD as `theirs`, BETTER or the SAME, at forgetting or at retaining."""

    ours: str
    theirs: str
    figure: str
    how: str = AS_GOOD


class Comparison(NamedTuple):
    """Holds where all of `needs` do and, if there are any, one of `gains`; fails where one of `needs` or all `gains` do."""

    needs: tuple[Statement, ...]
    gains: tuple[Statement, ...] = ()

    def verdict(self, results):
        """HOLDS, FAILS or OPEN by the Results of `needs` and then of `gains`."""
        found = [r.verdict for r in results]
        needs, gains = found[: len(self.needs)], found[len(self.needs) :]
        if FAILS in needs or (gains and set(gains) == {FAILS}):
            return FAILS
        return HOLDS if set(needs) == {HOLDS} and (HOLDS in gains or not gains) else OPEN


class Claim(NamedTuple):
    """What is claimed, by whom, and what it means here."""

    says: str
    source: str
    comparisons: tuple[Comparison, ...]


def as_good(ours, theirs):
    """`ours` forgets and retains as well."""
    return Comparison(tuple(Statement(ours, theirs, figure) for figure in MARGINS))


def retains_more(ours, theirs):
    """`ours` retains more, and forgets as well."""
    return Comparison((Statement(ours, theirs, FORGETTING), Statement(ours, theirs, RETAINING, BETTER)))


def better(ours, theirs):
    """`ours` forgets and retains as well, and one of the two better."""
    return Comparison(as_good(ours, theirs).needs, tuple(Statement(ours, theirs, figure, BETTER) for figure in MARGINS))


def same(ours, theirs):
    """It makes no difference, either way."""
    return Comparison(tuple(Statement(ours, theirs, figure, SAME) for figure in MARGINS))


ONE, PAPER, FOLLOW_UP, ASKED = study.STANDARD, "paper", "RAZOR", "asked here"
CLAIMS = (
    Claim("One step on one layer forgets the name", PAPER, (Comparison((Statement(ONE, LIMIT, FORGETTING),)),)),
    Claim("It leaves the rest as it was", PAPER, (Comparison((Statement(ONE, ORIGINAL, RETAINING),)),)),
    Claim("One layer retains more than both fronts", PAPER, (retains_more(ONE, "front_together"),)),
    Claim("One layer retains more than all layers", PAPER, (retains_more(ONE, "all_together"),)),
    Claim("Both figures rank better than importance only", PAPER, (better(ONE, "importance"),)),
    Claim("Both figures rank better than alignment only", PAPER, (better(ONE, "alignment"),)),
    Claim("The vision tower alone will do", ASKED, (as_good("vision", ONE),)),
    Claim("The language tower alone will do", ASKED, (as_good("language", ONE),)),
    Claim("The vision tower alone does better than the language tower alone", ASKED, (better("vision", "language"),)),
    Claim("The first step hardly matters", ASKED, (same("first_tenth", ONE), same("first_tenfold", ONE))),
    Claim("Ten evaluations a layer are enough", PAPER, (as_good(ONE, "evaluations_20"),)),
    Claim("So are five", ASKED, (as_good("evaluations_5", ONE),)),
    Claim(
        "A few renderings of each drawing are forget set enough",
        ASKED,
        (as_good("renderings_1", ONE), as_good("renderings_5", ONE)),
    ),
    Claim(
        "A few distinct drawings are forget set enough",
        ASKED,
        (as_good("drawings_1", ONE), as_good("drawings_2", ONE)),
    ),
    Claim("A smaller retain set will do", ASKED, (as_good("retain_10", ONE), as_good("retain_30", ONE))),
    Claim("Which part of it hardly matters", ASKED, (same("retain_30_again", "retain_30"),)),
    Claim("The deepest layer is as good a choice as ours", PAPER, (as_good("deepest", ONE),)),
    Claim("Several rounds over several layers retain more than one layer", FOLLOW_UP, (retains_more("rounds_3", ONE),)),
)
RULE = (
    "Rule: names are compared with themselves, in points, by the mean difference and its 95% t interval over names. "
    f"Forgetting is top-1 accuracy on the name's pictures (margin {MARGINS[FORGETTING]:g} points), retaining the mean "
    f"change of the other identities' and objects' top-1 accuracy (margin {MARGINS[RETAINING]:g} point). *As good*: the "
    "interval lies above minus the margin, and fails where it lies below; *better*: above 0, and fails where it lies below "
    "the margin; *the same*: within the margin either way, and fails where it lies beyond. That a name is forgotten holds "
    f"where the mean accuracy's interval, and the exact one of all pictures together, end at {selection.MAX_FORGET:.0%} or "
    "below. Where statements are joined by *or*, one is enough beside those before it; otherwise all are needed. A claim "
    "*holds* where all its comparisons do, *does not hold here* where all fail, holds *in part* where some hold and some "
    "fail, and is *not resolved* otherwise. Positive differences favour the one named first."
)


class Result(NamedTuple):
    """What became of a statement."""

    verdict: str  # HOLDS, FAILS or OPEN
    mean: float  # points
    low: float
    high: float
    names: int


def good(frame, variant):
    """A variant's runs that did not fail, by name."""
    return frame[(frame["variant"] == variant) & frame["error"].isna()].set_index("name")


def values(frame, variant, figure):
    """A figure of a variant by name, in points, higher is better: a Series; of runs that did not fail."""
    rows = good(frame, study.STANDARD if variant == ORIGINAL else variant)
    if figure == FORGETTING:
        return -100 * rows["forget_acc1"]
    found = 50 * (rows["identities_change"] + rows["objects_change"])
    return 0 * found if variant == ORIGINAL else found


def within_limit(rows):
    """Result of forgetting up to search.MAX_FORGET: percent still recognised, with the wider ends of the mean's t interval
    over names and of the exact interval of all pictures together, which also tells what a zero is worth."""
    if rows.empty:
        return Result(OPEN, math.nan, math.nan, math.nan, 0)
    mean, low, high = report.mean_interval(100 * rows["forget_acc1"])
    ends = statistics.interval(round((rows["forget_acc1"] * rows["n_forget"]).sum()), int(rows["n_forget"].sum()))
    low, high = max(0.0, np.nanmin([low, 100 * ends[0]])), np.nanmax([high, 100 * ends[1]])
    limit = 100 * selection.MAX_FORGET
    return Result(HOLDS if high <= limit else FAILS if low > limit else OPEN, mean, low, high, len(rows))


def compare(frame, statement):
    """Result of a Statement, over the names that have both variants; fewer than two resolve nothing."""
    ours, theirs, figure, how = statement
    if theirs == LIMIT:
        return within_limit(good(frame, ours))
    differences = (values(frame, ours, figure) - values(frame, theirs, figure)).dropna()
    if differences.empty:
        return Result(OPEN, math.nan, math.nan, math.nan, 0)
    mean, low, high = report.mean_interval(differences)
    margin = MARGINS[figure]
    holds = {AS_GOOD: low > -margin, BETTER: low > 0, SAME: low > -margin and high < margin}[how]
    fails = {AS_GOOD: high < -margin, BETTER: high < margin, SAME: high < -margin or low > margin}[how]
    # Where there is no interval neither comes true.
    return Result(HOLDS if holds else FAILS if fails else OPEN, mean, low, high, len(differences))


def against_standard(frame):
    """{figure: {variant: Series of points by name, a variant's less the standard's}} of the variants that were run."""
    run = [v for v in study.VARIANTS if v != study.STANDARD and v in set(frame["variant"])]
    found = {}
    for figure in MARGINS:
        standard = values(frame, study.STANDARD, figure)
        found[figure] = {v: d for v in run if len(d := (values(frame, v, figure) - standard).dropna())}
    return found


def verdict(found):
    """A claim's verdict by those of its comparisons."""
    if {HOLDS, FAILS} <= set(found):
        return "holds in part"
    if OPEN in found:
        return "not resolved"
    return "holds" if set(found) == {HOLDS} else "does not hold here"


def _said(statement, result):
    if statement.theirs == LIMIT:
        said = f"`{statement.ours}` is still recognised in at most {selection.MAX_FORGET:.0%}"
        numbers = f"{result.mean:.2f}% ({result.low:.2f} to {result.high:.2f})"
    else:
        theirs = "the unedited model" if statement.theirs == ORIGINAL else f"`{statement.theirs}`"
        than = {AS_GOOD: "as", BETTER: "than", SAME: "as"}[statement.how]
        said = f"`{statement.ours}` {statement.how} at {statement.figure} {than} {theirs}"
        spread = "" if math.isnan(result.low) else f" ({result.low:+.2f} to {result.high:+.2f})"
        numbers = f"{result.mean:+.2f}{spread}"
    return f"{said}: {result.verdict}, {numbers}, {result.names}" if result.names else f"{said}: no runs"


def judged(frame, comparison):
    """(HOLDS, FAILS or OPEN, what it rests on in words) of a Comparison."""
    statements = [*comparison.needs, *comparison.gains]
    results = [compare(frame, s) for s in statements]
    said = [_said(s, r) for s, r in zip(statements, results, strict=True)]
    parts = said[: len(comparison.needs)], said[len(comparison.needs) :]
    return comparison.verdict(results), "; ".join([*parts[0], *([" or ".join(parts[1])] if parts[1] else [])])


def table(frame):
    """Markdown: a row a claim with its verdict and what it rests on."""
    lines = ["| claim | of | verdict | comparison: result, points (95%), names |", "|---|---|---|---|"]
    for claim in CLAIMS:
        found, said = zip(*(judged(frame, c) for c in claim.comparisons), strict=True)
        lines.append(f"| {claim.says} | {claim.source} | **{verdict(found)}** | {'; '.join(said)} |")
    return "\n".join(lines)


def _points(series):
    mean, low, high = report.mean_interval(100 * series)
    return f"{mean:.2f}" + ("" if math.isnan(low) else f" ({low:.2f} to {high:.2f})")


def variants_table(frame):
    """Markdown: a row a variant and kind of name, means over names with 95% t intervals, test split."""
    lines = [
        "| variant | forgotten | names (failed) | FA@1 % | pictures still recognised | other identities, points | "
        "other objects, points | forgets on the validation split | layer of the standard | layers | candidates | pairs | "
        "weights moved | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    chosen = frame[frame["variant"] == study.STANDARD].set_index("name")["layer"]
    kinds = frame.dropna(subset="kind").drop_duplicates("name").set_index("name")["kind"]
    frame = frame.assign(kind=frame["name"].map(kinds))  # a failed run does not know its own
    for variant, says in ((v.name, v.says) for v in study.VARIANTS.values()):
        for kind, rows in frame[frame["variant"] == variant].groupby("kind"):
            good = rows[rows["error"].isna()]
            failed = len(rows) - len(good)
            cells = [f"`{variant}`: {says}", kind, f"{len(good)} ({failed})"]
            if len(good):
                left = round((good["forget_acc1"] * good["n_forget"]).sum())
                same = sum(chosen.get(n) == layer for n, layer in zip(good["name"], good["layer"], strict=True))
                mean = good[["n_layers", "n_candidates", "n_pairs", "params_share", "seconds"]].astype(float).mean()
                cells += [
                    _points(good["forget_acc1"]),
                    f"{left} of {good['n_forget'].sum():.0f}",
                    _points(good["identities_change"]),
                    _points(good["objects_change"]),
                    f"{good['validation_forgets'].sum():.0f} of {len(good)}",
                    f"{same} of {len(good)}",
                    f"{mean['n_layers']:.1f}",
                    f"{mean['n_candidates']:.0f}",
                    f"{mean['n_pairs']:.0f}",
                    f"{mean['params_share']:.1%}",
                    f"{mean['seconds']:.1f}",
                ]
            lines.append(f"| {' | '.join(cells + [''] * (14 - len(cells)))} |")
    return "\n".join(lines)


def counts(frame):
    """One line: what was run, and the time it took."""
    kinds = frame.dropna(subset="kind").drop_duplicates("name")["kind"].value_counts()
    said = ", ".join(f"{n} {'identities' if k == 'identity' else 'objects'}" for k, n in sorted(kinds.items()))
    failed = int(frame["error"].notna().sum())
    hours = frame["run_s"].sum() / 3600
    return (
        f"{len(frame)} runs of {frame['variant'].nunique()} variants on {said}; {failed} failed. "
        f"The runs took {hours:.2f} hours of process time together."
    )


def failures(frame):
    """Markdown: the runs that failed."""
    rows = frame[frame["error"].notna()]
    return "\n".join(f"* {r['name']}, {r['variant']}: {r['error']}" for _, r in rows.iterrows()) or "None."


def markdown(frame, picture):
    """The report of a study.

    Args:
        picture: where the plot of `against_standard` lies, from the report's folder.
    """
    model = ", ".join(sorted(frame["model"].dropna().unique()))
    return "\n\n".join(
        [
            f"# The paper's claims on {model}",
            counts(frame)
            + " Layers and steps were chosen on the validation split of the drawings; all figures are of the other.",
            RULE,
            "## Verdicts",
            table(frame),
            "## Variants",
            f"![each variant beside the standard]({picture})",
            "Means over names with 95% t intervals; changes are from the unedited model. Seconds are the forget pass and "
            "the steps of one name's search (those that several variants try were scored once); the retain pass that all "
            "share is not among them. Whole forget sets were passed with all threads, parts of them with one process's.",
            variants_table(frame),
            "## Failed runs",
            failures(frame),
            "",
        ]
    )


def blocks(frame):
    """What README quotes: {block: Markdown}."""
    return {"study": "\n\n".join([counts(frame), table(frame), RULE])}
