"""What a study says of the paper's claims: verdicts by one rule, from the table of runs. Knows no models.

A claim is a few statements, each a comparison of two variants: per name, how many points better the first is, with the
mean and 95% t interval over names. `as good`: the interval lies above minus the margin. `better`: it lies above 0. A
statement fails where the whole interval lies below minus the margin, or, for `better`, below the margin: what advantage
there may be is too small to matter. Otherwise it is not resolved.
"""

import math
from typing import NamedTuple

from slug import report, search, study

FORGETTING, RETAINING = "forgetting", "retaining"
MARGINS = {FORGETTING: 2.0, RETAINING: 1.0}  # points
ORIGINAL, LIMIT = "original", "limit"  # in a variant's place: the unedited model; a forget accuracy of search.MAX_FORGET
HOLDS, FAILS, OPEN = "holds", "fails", "not resolved"


class Statement(NamedTuple):
    """The variant `ours` is as good as `theirs`, or better, at forgetting or at retaining."""

    ours: str
    theirs: str
    figure: str
    better: bool = False


class Claim(NamedTuple):
    """What is claimed, by whom, and what it means here."""

    says: str
    source: str
    statements: tuple[Statement, ...]


def _as_good(ours, theirs, *, retains_better=False):
    return Statement(ours, theirs, FORGETTING), Statement(ours, theirs, RETAINING, retains_better)


ONE, PAPER, FOLLOW_UP, ASKED = study.STANDARD, "paper", "RAZOR", "asked here"
CLAIMS = (
    Claim("One step on one layer forgets the name", PAPER, (Statement(ONE, LIMIT, FORGETTING, True),)),
    Claim("It leaves the rest as it was", PAPER, (Statement(ONE, ORIGINAL, RETAINING),)),
    Claim("One layer retains more than both fronts", PAPER, _as_good(ONE, "front_together", retains_better=True)),
    Claim("One layer retains more than all layers", PAPER, _as_good(ONE, "all_together", retains_better=True)),
    Claim("Both figures rank better than importance only", PAPER, _as_good(ONE, "importance", retains_better=True)),
    Claim("Both figures rank better than alignment only", PAPER, _as_good(ONE, "alignment", retains_better=True)),
    Claim("The vision tower alone will do", ASKED, _as_good("vision", ONE)),
    Claim("The language tower alone will do", ASKED, _as_good("language", ONE)),
    Claim(
        "The first step hardly matters",
        ASKED,
        (*_as_good("first_tenth", ONE), *_as_good("first_tenfold", ONE)),
    ),
    Claim("Ten evaluations a layer are enough", PAPER, _as_good(ONE, "evaluations_20")),
    Claim("So are five", ASKED, _as_good("evaluations_5", ONE)),
    Claim(
        "A few renderings of each drawing are forget set enough",
        ASKED,
        (*_as_good("renderings_1", ONE), *_as_good("renderings_5", ONE)),
    ),
    Claim(
        "A few distinct drawings are forget set enough",
        ASKED,
        (*_as_good("drawings_1", ONE), *_as_good("drawings_2", ONE)),
    ),
    Claim("A smaller retain set will do", ASKED, (*_as_good("retain_10", ONE), *_as_good("retain_30", ONE))),
    Claim("Which part of it hardly matters", ASKED, _as_good("retain_30_again", "retain_30")),
    Claim("The deepest layer is as good a choice as ours", PAPER, _as_good("deepest", ONE)),
    Claim("Several rounds over several layers beat one layer", FOLLOW_UP, _as_good("rounds_3", ONE, retains_better=True)),
)
RULE = (
    "Rule: each claim is tested by per-name differences in points, paired, with their mean and 95% t interval over names. "
    f"Forgetting is top-1 accuracy on the name's pictures (margin {MARGINS[FORGETTING]:g} points), retaining the mean "
    f"change of the other identities' and objects' top-1 accuracy (margin {MARGINS[RETAINING]:g} point). *As good*: the "
    "interval lies above minus the margin; *better*: above 0. It fails where the whole interval lies below minus the "
    "margin, or for *better* below the margin. *Holds*: every comparison does; *does not hold here*: every one fails; "
    "*holds in part*: some hold and some fail; otherwise *not resolved*. Positive differences favour the one named first."
)


class Result(NamedTuple):
    """What became of a statement."""

    verdict: str  # HOLDS, FAILS or OPEN
    mean: float  # points
    low: float
    high: float
    names: int


def values(frame, variant, figure):
    """A figure of a variant by name, in points, higher is better: a Series; of runs that failed none."""
    rows = frame[(frame["variant"] == (study.STANDARD if variant in (ORIGINAL, LIMIT) else variant)) & frame["error"].isna()]
    rows = rows.set_index("name")
    if figure == FORGETTING:
        found = rows["original_forget_acc1"] if variant == ORIGINAL else rows["forget_acc1"]
        return -100 * (0 * found + search.MAX_FORGET if variant == LIMIT else found)
    found = 50 * (rows["identities_change"] + rows["objects_change"])
    return 0 * found if variant == ORIGINAL else found


def compare(frame, statement):
    """Result of a Statement, over the names that have both variants; fewer than two resolve nothing."""
    differences = (
        values(frame, statement.ours, statement.figure) - values(frame, statement.theirs, statement.figure)
    ).dropna()
    if differences.empty:
        return Result(OPEN, math.nan, math.nan, math.nan, 0)
    mean, low, high = report.mean_interval(differences)
    margin = MARGINS[statement.figure]
    if low > (0 if statement.better else -margin):
        found = HOLDS
    elif high < (margin if statement.better else -margin):
        found = FAILS
    else:
        found = OPEN  # also where there is no interval
    return Result(found, mean, low, high, len(differences))


def against_standard(frame):
    """{figure: {variant: Series of points by name, a variant's less the standard's}} of the variants that were run."""
    run = [v for v in study.VARIANTS if v != study.STANDARD and v in set(frame["variant"])]
    found = {}
    for figure in MARGINS:
        standard = values(frame, study.STANDARD, figure)
        found[figure] = {v: d for v in run if len(d := (values(frame, v, figure) - standard).dropna())}
    return found


def verdict(results):
    """A claim's verdict by those of its statements."""
    found = {r.verdict for r in results}
    if HOLDS in found and FAILS in found:
        return "holds in part"
    if OPEN in found:
        return "not resolved"
    return "holds" if found == {HOLDS} else "does not hold here"


def _said(statement, result):
    names = {LIMIT: f"{search.MAX_FORGET:.0%} recognised", ORIGINAL: "the unedited model"}
    against = names.get(statement.theirs, f"`{statement.theirs}`")
    how = f"better at {statement.figure} than" if statement.better else f"as good at {statement.figure} as"
    said = f"`{statement.ours}` {how} {against}"
    if not result.names:
        return f"{said}: no runs"
    spread = "" if math.isnan(result.low) else f" ({result.low:+.2f} to {result.high:+.2f})"
    return f"{said}: {result.verdict}, {result.mean:+.2f}{spread}, {result.names}"


def table(frame):
    """Markdown: a row a claim with its verdict and what it rests on."""
    lines = ["| claim | of | verdict | comparison: result, points (95%), names |", "|---|---|---|---|"]
    for claim in CLAIMS:
        results = [compare(frame, s) for s in claim.statements]
        said = "; ".join(map(_said, claim.statements, results))
        lines.append(f"| {claim.says} | {claim.source} | **{verdict(results)}** | {said} |")
    return "\n".join(lines)


def _points(series):
    mean, low, high = report.mean_interval(100 * series)
    return f"{mean:.2f}" + ("" if math.isnan(low) else f" ({low:.2f} to {high:.2f})")


def variants_table(frame):
    """Markdown: a row a variant and kind of name, means over names with 95% t intervals, report half."""
    lines = [
        "| variant | forgotten | names (failed) | FA@1 % | pictures still recognised | other identities, points | "
        "other objects, points | forgets on the select half | layer of the standard | layers | candidates | pairs | "
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
                    f"{good['select_forgets'].sum():.0f} of {len(good)}",
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


def markdown(frame):
    """The report of a study."""
    model = ", ".join(sorted(frame["model"].dropna().unique()))
    return "\n\n".join(
        [
            f"# The paper's claims on {model}",
            counts(frame)
            + " Layers and steps were chosen on the select half of the drawings; all figures are of the other.",
            RULE,
            "## Verdicts",
            table(frame),
            "## Variants",
            "Means over names with 95% t intervals; changes are from the unedited model. Seconds are the forget pass and "
            "the search of one name; the retain pass that all share is not among them.",
            variants_table(frame),
            "## Failed runs",
            failures(frame),
            "",
        ]
    )


def blocks(frame):
    """What README quotes: {block: Markdown}."""
    return {"study": "\n\n".join([counts(frame), table(frame)])}
