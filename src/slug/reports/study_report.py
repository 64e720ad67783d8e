"""The report on a study: verdicts on the paper's claims, variants beside each other, failed runs."""

import os
from pathlib import Path

import pandas as pd

from slug import files
from slug.reports import claims, intervals, markdown, rules
from slug.schema import STANDARD, STUDY_VARIANTS, TASKS

FIGURE = (
    "Each variant beside the standard, name by name, on the test split. Both axes are linear between -1 and 1 and "
    "logarithmic beyond."
)
NOTE = (
    "Means over names with 95% t intervals; changes are from the unedited model. Seconds are the forget pass and the steps "
    "of one name's search (steps that several variants try were evaluated once), without the retain pass that all names "
    "share. Gradients of whole forget sets were computed with all threads, those of parts with the threads of one process."
)


def _statement(statement: claims.Statement, result: claims.Result, limit: float) -> str:
    """A statement and its result in words; `limit` is the largest forget accuracy of a forgotten name."""
    if statement.theirs == claims.LIMIT:
        said = f"at most {100 * limit:g}% is still recognised with `{statement.ours}`"
        numbers = f"{result.mean:.2f}%{intervals.spread(result.low, result.high, '.2f')}"
    else:
        theirs = "the unedited model" if statement.theirs == claims.ORIGINAL else f"`{statement.theirs}`"
        than = "than" if statement.how == claims.BETTER else "as"
        said = f"`{statement.ours}` is {statement.how} at {statement.figure} {than} {theirs}"
        numbers = f"{result.mean:+.2f}{intervals.spread(result.low, result.high, '+.2f')}"
        if result.names:
            numbers += f", median {result.median:+.2f}, won {result.won}, lost {result.lost}, p {result.p:.2g}"
        if statement.how == claims.BETTER and result.names:
            numbers += f", headroom {result.headroom:.2f}"
    return f"{said}: {result.verdict}, {numbers}, {result.names}" if result.names else f"{said}: no runs"


def judged(frame: pd.DataFrame, comparison: claims.Comparison) -> tuple[str, str]:
    """The verdict of a comparison, and what it rests on in words."""
    statements = [*comparison.needs, *comparison.gains]
    results = [claims.compare(frame, s) for s in statements]
    limit = rules.max_forget(frame)
    said = [_statement(s, r, limit) for s, r in zip(statements, results, strict=True)]
    needs, gains = said[: len(comparison.needs)], said[len(comparison.needs) :]
    return comparison.verdict(results), "; ".join([*needs, *([" or ".join(gains)] if gains else [])])


def verdicts_table(frame: pd.DataFrame) -> str:
    """Markdown: a row for each claim with its verdict and what it rests on."""
    rows = []
    for claim in claims.CLAIMS:
        found, said = zip(*(judged(frame, c) for c in claim.comparisons), strict=True)
        rows.append([claim.says, claim.source, f"**{claims.verdict(found)}**", "; ".join(said)])
    return markdown.table("claim | source | verdict | comparison: result, points (95%), names", rows)


def variants_table(frame: pd.DataFrame) -> str:
    """Markdown: a row for each variant and kind of name, means over names with 95% t intervals, test split."""
    heads = (
        "variant | forgotten | names (failed) | FA@1, % | pictures still recognised | other identities, change in points | "
        "other objects, change in points | forgets on the validation split | chooses the standard's layer | layers "
        "searched | candidates | pairs | weights moved | seconds"
    )
    standard = frame[frame["variant"] == STANDARD].set_index("name")["layer"]
    kinds = frame.dropna(subset="kind").drop_duplicates("name").set_index("name")["kind"]
    frame = frame.assign(kind=frame["name"].map(kinds))  # the row of a failed run lacks it
    rows = []
    for variant, says in STUDY_VARIANTS.items():
        for kind, part in intervals.groups(frame[frame["variant"] == variant], "kind"):
            good = part[part["error"].isna()]
            row = f"`{variant}`: {says} | {kind} | {len(good)} ({len(part) - len(good)}) | "
            rows.append(row + (_variant_cells(good, standard) if len(good) else " | " * 10))
    return markdown.table(heads, rows)


def _variant_cells(good: pd.DataFrame, standard: pd.Series) -> str:
    """The figures of a variant's finished runs; `standard` has the standard's layer by name."""
    left = round((good["forget_acc1"] * good["n_forget"]).sum())
    same = sum(standard.get(n) == layer for n, layer in zip(good["name"], good["layer"], strict=True))
    mean = good[["n_layers", "n_candidates", "n_pairs", "params_share", "seconds"]].astype(float).mean()
    changes = " | ".join(intervals.change(good[f"{task}_change"], "+.2f") for task in TASKS)
    return (
        f"{intervals.change(good['forget_acc1'], '.2f')} | {left} of {good['n_forget'].sum():.0f} | {changes} | "
        f"{good['validation_forgets'].sum():.0f} of {len(good)} | {same} of {len(good)} | {mean['n_layers']:.1f} | "
        f"{mean['n_candidates']:.0f} | {mean['n_pairs']:.0f} | {mean['params_share']:.1%} | {mean['seconds']:.1f}"
    )


def counts(frame: pd.DataFrame) -> str:
    """What was run, and the time it took."""
    kinds = frame.dropna(subset="kind").drop_duplicates("name")["kind"].value_counts()
    said = ", ".join(f"{n} {'identities' if k == 'identity' else 'objects'}" for k, n in sorted(kinds.items()))
    return (
        f"{len(frame)} runs of {frame['variant'].nunique()} variants on {said}; {int(frame['error'].notna().sum())} failed. "
        f"The runs took {frame['run_s'].sum() / 3600:.2f} hours of process time together."
    )


def failures(frame: pd.DataFrame) -> str:
    """Markdown list of the runs that failed."""
    rows = frame[frame["error"].notna()]
    return "\n".join(f"* {r['name']}, {r['variant']}: {r['error']}" for _, r in rows.iterrows()) or "None."


def report(frame: pd.DataFrame, picture: str) -> str:
    """The report on a study.

    Args:
        picture: path of the plot of `claims.against_standard` from the report's folder.
    """
    chosen = "Layers and steps were chosen on the validation split; all figures are of the test split."
    return "\n\n".join(
        [
            f"# The paper's claims on {', '.join(sorted(frame['model'].dropna().unique()))}",
            f"{counts(frame)} {chosen}",
            rules.said(frame),
            claims.rule(frame),
            "## Verdicts",
            verdicts_table(frame),
            "## Variants",
            markdown.figure("variants beside the standard", picture, FIGURE),
            NOTE,
            variants_table(frame),
            "## Failed runs",
            failures(frame),
            "",
        ]
    )


def blocks(frame: pd.DataFrame) -> dict[str, str]:
    """What a page on the study quotes: {block: Markdown}."""
    return {"study": "\n\n".join([rules.line(frame), counts(frame), verdicts_table(frame), claims.rule(frame)])}


def draw(frame: pd.DataFrame, stem: Path) -> None:
    """Every variant beside the standard."""
    from slug.reports import plots

    found = claims.against_standard(frame)
    title = "Each variant of the search beside the standard"
    plots.variants(found, intervals.mean_interval, claims.MARGINS, claims.QUESTIONS, title, stem)


def write(frame: pd.DataFrame, source: Path, out: Path, path: Path, readme: str = "") -> None:
    """Write the report on a study and its plot, copy its table, and fill the block of a page.

    Args:
        source: folder of runs.parquet.
        out: folder of the plot and of the copy.
        path: the report.
    """
    draw(frame, out / "variants")
    if out != source:
        files.place(source / "runs.parquet", out / "runs.parquet")
    files.write_text(path, report(frame, os.path.relpath(out / "variants.png", path.parent)))
    if readme:
        markdown.fill_blocks(readme, blocks(frame))
    print(f"{counts(frame)}\n{verdicts_table(frame)}\nverdicts and variants: {path}")
