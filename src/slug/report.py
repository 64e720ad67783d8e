"""Tables from records: one tidy CSV, a Markdown report, and the block of README that quotes it. Knows no models."""

import math
import re

import numpy as np
import pandas as pd

from slug import files
from slug.errors import SlugError
from slug.plots import short

COLUMNS = (
    "method name kind model layer step forget_acc1 forget_acc5 identities_acc1 objects_acc1 n_forget n_identities n_objects "
    "mia_mean mia_std seconds peak_mem_mb params_touched delta_bytes n_drawings n_candidates half seed "
    "forget_upper forget_seen_acc1 forget_unseen_acc1 n_forget_unseen mia_others_mean mia_others_std "
    "identities_change identities_change_low identities_change_high objects_change objects_change_low "
    "objects_change_high relative_step params_share gradient_s search_s"
).split()


def table(records):
    """A row per name, half and state (original, slug) of JSON records: DESIGN.md's table.csv, with more columns behind."""
    rows = []
    for record in records:
        for half, states in record["halves"].items():
            for method, figures in states.items():
                row = {c: record.get(c) for c in ("name", "kind", "model", "seed")}
                if method != "original":
                    row |= {c: record.get(c) for c in COLUMNS if c in record}
                    method = record["method"]
                rows.append({**row, **figures, "half": half, "method": method})
    return pd.DataFrame(rows).reindex(columns=COLUMNS).sort_values(["half", "kind", "name", "method"], ignore_index=True)


def mean_interval(values, level=0.95):
    """Mean of the names' values and its t interval over names, (mean, low, high); one name has no interval."""
    from scipy import stats

    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def verdict(change, low, high, margin):
    """Whether a paired change is within `margin` points below zero: `within`, `beyond`, or `not resolved` (points)."""
    if high - low > 2 * margin:
        return "not resolved"
    return "within" if change >= -margin else "beyond"


def _cell(values):
    mean, low, high = mean_interval(100 * values)
    spread = "" if math.isnan(low) else f" ({low:.1f} to {high:.1f})"
    return f"{mean:.1f}{spread}"


def names_table(frame):
    """Markdown: a row per forgotten name, report half."""
    report = frame[frame["half"] == "report"]
    lines = [
        "| name | kind | layer | step | FA@1 before | FA@1 after (upper bound) | pictures / drawings | "
        "identities, points (95%) | objects, points (95%) | MIA before | after | delta kB (share) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, name), rows in report.groupby(["kind", "name"]):
        before = rows[rows["method"] == "original"].iloc[0]
        for _, r in rows[rows["method"] != "original"].iterrows():
            change = {
                t: f"{100 * r[f'{t}_change']:+.2f} ({100 * r[f'{t}_change_low']:+.2f} to {100 * r[f'{t}_change_high']:+.2f})"
                for t in ("identities", "objects")
            }
            lines.append(
                f"| {name} | {kind} | `{short(r['layer'])}` | {r['step']:.3g} | {before['forget_acc1']:.1%} | "
                f"{r['forget_acc1']:.1%} (at most {r['forget_upper']:.1%}) | {r['n_forget']:.0f} / {r['n_drawings']:.0f} | "
                f"{change['identities']} | {change['objects']} | {before['mia_mean']:.1f} | {r['mia_mean']:.1f} | "
                f"{r['delta_bytes'] / 1e3:.0f} ({r['params_share']:.1%}) |"
            )
    return "\n".join(lines)


def means_table(frame):
    """Markdown: mean over names with a 95% t interval, report half, a row per method and kind."""
    report = frame[frame["half"] == "report"]
    lines = [
        "| forgotten | method | names | FA@1 | FA@5 | identities @1 | objects @1 | MIA % | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, method), rows in report.groupby(["kind", "method"]):
        seconds = "" if method == "original" else f"{rows['seconds'].mean():.1f}"
        cells = [_cell(rows[c]) for c in ("forget_acc1", "forget_acc5", "identities_acc1", "objects_acc1")]
        plural = {"identity": "identities", "object": "objects"}.get(kind, kind)
        lines.append(
            f"| {plural} | {method} | {len(rows)} | {' | '.join(cells)} | {rows['mia_mean'].mean():.1f} | {seconds} |"
        )
    return "\n".join(lines)


def pooled(frame):
    """One line on all names: counts of forgotten pictures and the paired changes against their margins."""
    rows = frame[(frame["half"] == "report") & (frame["method"] != "original")]
    lines = []
    for kind, part in rows.groupby("kind"):
        correct = round((part["forget_acc1"] * part["n_forget"]).sum())
        lines.append(
            f"* {kind}: {correct} of {int(part['n_forget'].sum())} report pictures of {len(part)} forgotten names are still "
            f"recognised; largest upper bound of a name {part['forget_upper'].max():.1%}."
        )
    for task, margin in (("identities", 2), ("objects", 1)):
        said = [verdict(*(100 * r[f"{task}_change{e}"] for e in ("", "_low", "_high")), margin) for _, r in rows.iterrows()]
        counts = ", ".join(f"{said.count(v)} {v}" for v in ("within", "beyond", "not resolved") if v in said)
        worst = rows.loc[rows[f"{task}_change"].idxmin()]
        lines.append(
            f"* other {task} against the original, margin {margin} point{'s' * (margin > 1)}: {counts}; mean change "
            f"{100 * rows[f'{task}_change'].mean():+.2f}, worst {100 * worst[f'{task}_change']:+.2f} ({worst['name']})."
        )
    return "\n".join(lines)


def markdown(frame):
    """The report of a folder of records."""
    n = frame["name"].nunique()
    return "\n\n".join(
        [
            f"# SLUG on {', '.join(sorted(frame['model'].unique()))}: {n} names",
            "Steps and layers were chosen on the select half of the drawings; every figure here is of the report half. "
            "FA is zero-shot accuracy on pictures of the forgotten name; identities and objects leave it out. "
            "Changes are paired, with 95% bootstrap intervals over drawings; means over names carry t intervals.",
            "## All names",
            pooled(frame),
            means_table(frame),
            "## Each name",
            names_table(frame),
            "MIA is the accuracy, in %, of telling forget-set pictures from left-out drawings of the same concept by "
            "logistic regression on the pair cosine; 50 is chance.",
            "",
        ]
    )


def update_block(text, key, content):
    """`text` with what stands between `<!-- key -->` and `<!-- /key -->` replaced; SlugError if the marks are missing."""
    pattern = re.compile(rf"(<!-- {key} -->\n).*?(<!-- /{key} -->)", re.S)
    if not pattern.search(text):
        raise SlugError(f"no <!-- {key} --> ... <!-- /{key} --> to fill")
    return pattern.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text)


def write(folder, frame):
    """Write table.csv and report.md; returns the table as a reader of the file has it, rounded, so that texts agree."""
    files.write_text(folder / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    frame = pd.read_csv(folder / "table.csv")
    files.write_text(folder / "report.md", markdown(frame))
    return frame
