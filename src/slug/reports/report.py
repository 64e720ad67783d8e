"""Tables from records: one tidy CSV, a Markdown report, and the block of README that quotes it. Knows no models."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd

from slug import files
from slug.artifacts import gradient_files, records
from slug.errors import SlugError

REVERTED = "_without"
from slug.reports import plots

COLUMNS = (
    "method name kind model layer step forget_acc1 forget_acc5 identities_acc1 objects_acc1 n_forget n_identities n_objects "
    "mia_mean mia_std seconds peak_mem_mb params_touched delta_bytes n_drawings n_candidates split seed "
    "forget_upper forget_seen_acc1 forget_unseen_acc1 n_forget_unseen mia_others_mean mia_others_std "
    "identities_change identities_change_low identities_change_high objects_change objects_change_low "
    "objects_change_high forget_vision_acc1 forget_language_acc1 relative_step params_share gradient_s shared_s search_s "
    "inside_grid"
).split()
METHODS = "original slug slug_o slug_w slug_ws ft ga gaft salun ssd ga_o gaft_o salun_o ssd_o".split()  # the order of tables
PUBLISHED = {  # PAPER.md, section 2: FA@1, TA_CA@1, TA_IN@1, MIA in %; ViT-B-32 laion400m_e32, mean of five identities
    "original": (73.05, 61.38, 60.12, 72.81),
    "ft": (66.08, 60.70, 60.36, 72.42),
    "ga": (0, 24.92, 35.88, 89.96),
    "gaft": (0, 25.71, 55.52, 90.75),
    "salun": (0, 26.11, 55.45, 90.55),
    "ssd": (0, 35.96, 51.84, 80.58),
    "slug": (0, 58.32, 59.96, math.nan),
}


def table(records):
    """A row per name, split and method (or original) of JSON records: DESIGN.md's table.csv, with more columns behind."""
    rows = []
    for record in records:
        for split, states in record["splits"].items():
            for method, figures in states.items():
                row = {c: record.get(c) for c in ("name", "kind", "model", "seed")}
                if method != "original":
                    row |= {c: record.get(c) for c in COLUMNS if c in record}
                    method = record["method"]
                rows.append({**row, **figures, "split": split, "method": method})
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS).sort_values(["split", "kind", "name", "method"], kind="stable")
    # Every method's record holds the unedited model's figures, and they are the same ones.
    return frame.drop_duplicates(["model", "name", "split", "method"], ignore_index=True)


def slug_rows(frame, split="test"):
    """The rows of SLUG and its variant on one half."""
    return frame[(frame["split"] == split) & frame["method"].str.startswith("slug")]


def mean_interval(values, level=0.95):
    """Mean of the names' values and its t interval over names, (mean, low, high); one name has no interval."""
    from scipy import stats

    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), math.nan, math.nan
    split = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - split), float(values.mean() + split)


def verdict(change, low, high, margin):
    """Whether a paired change is within `margin` points below zero: `within`, `beyond`, or `not resolved` (points)."""
    if high - low > 2 * margin:
        return "not resolved"
    return "within" if change >= -margin else "beyond"


def _cell(values):
    mean, low, high = mean_interval(100 * values)
    if math.isnan(mean):  # of nothing that was judged
        return ""
    spread = "" if math.isnan(low) else f" ({max(low, 0):.1f} to {min(high, 100):.1f})"
    return f"{mean:.1f}{spread}"


def names_table(frame):
    """Markdown: a row per forgotten name, test split."""
    report = frame[frame["split"] == "test"]
    lines = [
        "| name | kind | layer | step | FA@1 before | FA@1 after (upper bound) | pictures / drawings | "
        "identities, points (95%) | objects, points (95%) | MIA before | after | delta kB (share) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, name), rows in report.groupby(["kind", "name"]):
        before = rows[rows["method"] == "original"].iloc[0]
        for _, r in slug_rows(rows).iterrows():
            change = {
                t: f"{100 * r[f'{t}_change']:+.2f} ({100 * r[f'{t}_change_low']:+.2f} to {100 * r[f'{t}_change_high']:+.2f})"
                for t in ("identities", "objects")
            }
            lines.append(
                f"| {name} | {kind} | `{r['layer'].removesuffix('.weight')}` | {r['step']:.3g} | "
                f"{before['forget_acc1']:.1%} | "
                f"{r['forget_acc1']:.1%} (at most {r['forget_upper']:.1%}) | {r['n_forget']:.0f} / {r['n_drawings']:.0f} | "
                f"{change['identities']} | {change['objects']} | {before['mia_mean']:.1f} | {r['mia_mean']:.1f} | "
                f"{r['delta_bytes'] / 1e3:.0f} ({r['params_share']:.1%}) |"
            )
    return "\n".join(lines)


def means_table(frame):
    """Markdown: mean over names with a 95% t interval, test split, a row per method and kind."""
    report = frame[frame["split"] == "test"]
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
    rows = slug_rows(frame)
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
        mean, low, high = _points(rows[f"{task}_change"])
        spread = "" if math.isnan(low) else f" (95% over names {low:+.2f} to {high:+.2f})"
        lines.append(
            f"* other {task} against the original: mean change {mean:+.2f} points{spread}; "
            f"at a margin of {margin} point{'s' * (margin > 1)}, by name: {counts}, "
            f"worst {100 * worst[f'{task}_change']:+.2f} ({worst['name']})."
        )
    return "\n".join(lines)


def markdown(frame):
    """The report of a folder of records."""
    n = frame["name"].nunique()
    comparison = [
        "## Comparison",
        "The names that every method was run on, each method chosen by one rule over all its candidates. The last column "
        "is the paper's: another model (ViT-B-32), other data (LAION-400M, CelebA, ImageNet). MIA in brackets is the "
        "published definition, against unseen pairs of other concepts.",
        comparison_table(frame),
        claims(frame),
        "### Cost",
        costs_table(frame),
    ]
    return "\n\n".join(
        [
            f"# SLUG on {', '.join(sorted(frame['model'].unique()))}: {n} names",
            "Steps and layers were chosen on the validation split of the drawings; every figure here is of the test split. "
            "FA is zero-shot accuracy on pictures of the forgotten name; identities and objects leave it out. "
            "Changes are paired, with 95% bootstrap intervals over drawings; means over names carry t intervals.",
            "## All names",
            pooled(frame),
            means_table(frame),
            "## Each name",
            names_table(frame),
            "MIA is the accuracy, in %, of telling forget-set pictures from left-out drawings of the same concept by "
            "logistic regression on the pair cosine; 50 is chance.",
            *(comparison if has_baselines(frame) else []),
            "",
        ]
    )


def _points(values):
    """(mean, low, high) over names of paired changes, in points."""
    return mean_interval(100 * values)


def _change(values):
    """`_points` as text; of one name without an interval."""
    mean, low, high = _points(values)
    return f"{mean:+.1f}" + ("" if math.isnan(low) else f" ({low:+.1f} to {high:+.1f})")


def compared(frame):
    """The test split of the names that every method in it was run on, methods in the order of tables."""
    report = frame[frame["split"] == "test"]
    methods = [m for m in METHODS if m in set(report["method"])]
    names = set.intersection(*(set(report[report["method"] == m]["name"]) for m in methods)) if methods else set()
    report = report[report["name"].isin(names)]
    return report.assign(method=pd.Categorical(report["method"], methods, ordered=True))


def comparison_table(frame):
    """Markdown: a row per kind and method with changes from the original, and the paper's figures beside them."""
    lines = [
        "| forgotten | method | names | FA@1 | of vision, language alone | identities @1 | change | objects @1 | change "
        "| MIA % (others) | candidates | paper: FA@1, TA_CA@1, TA_IN@1, MIA |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, method), rows in compared(frame).groupby(["kind", "method"], observed=True):
        cells = []
        for task in ("identities", "objects"):
            change = "" if method == "original" else _change(rows[f"{task}_change"])
            cells += [f"{100 * rows[f'{task}_acc1'].mean():.1f}", change]
        mia = f"{rows['mia_mean'].mean():.1f} ({rows['mia_others_mean'].mean():.1f})"
        tried = "" if method == "original" else f"{rows['n_candidates'].mean():.0f}"
        paper = PUBLISHED.get(method) if kind == "identity" else None
        paper = ", ".join("-" if math.isnan(x) else f"{x:g}" for x in paper) if paper else ""
        fa = _cell(rows["forget_acc1"])
        alone = [rows[f"forget_{s}_acc1"] for s in ("vision", "language")]
        alone = "" if method == "original" else ", ".join("-" if v.isna().any() else f"{100 * v.mean():.1f}" for v in alone)
        lines.append(
            f"| {kind} | {method} | {len(rows)} | {fa} | {alone} | {' | '.join(cells)} | {mia} | {tried} | {paper} |"
        )
    return "\n".join(lines)


def costs_table(frame):
    """Markdown: what a method's chosen candidate costs, mean over names."""
    lines = [
        "| method | forget pass s | search, or training of the chosen run s | all candidates s | retain pass, once for all "
        "names s | peak memory MB | weights touched | to store kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = compared(frame)
    for method, part in rows[rows["method"] != "original"].groupby("method", observed=True):
        mean = part[["gradient_s", "seconds", "search_s", "shared_s", "peak_mem_mb", "params_share", "delta_bytes"]].mean()
        lines.append(
            f"| {method} | {mean['gradient_s']:.1f} | {mean['seconds'] - mean['gradient_s']:.1f} | {mean['search_s']:.1f} | "
            f"{mean['shared_s']:.1f} | {mean['peak_mem_mb']:.0f} | {mean['params_share']:.1%} | "
            f"{mean['delta_bytes'] / 1e3:.0f} |"
        )
    lines += [
        "",
        "Mean over names. SLUG's search is all its candidates. Peak memory is the whole process: pictures, evaluation and, "
        "for SLUG, kept activations included.",
    ]
    return "\n".join(lines)


def claims(frame):
    """Plain statements: for each rival, where SLUG's retain changes lie against its own, by 95% t intervals over names."""
    lines, report = [], compared(frame)
    for kind, rows in report.groupby("kind"):
        ours = rows[rows["method"] == "slug"]
        if len(ours) < 2:
            lines.append(f"* {kind}: {len(ours)} name of SLUG; an interval over names needs two.")
            continue
        for method in (m for m in METHODS if m in set(rows["method"]) and not m.startswith(("original", "slug"))):
            theirs, said = rows[rows["method"] == method], []
            for task in ("identities", "objects"):
                a, b = _points(ours[f"{task}_change"]), _points(theirs[f"{task}_change"])
                where = "above, apart" if a[1] > b[2] else "below, apart" if a[2] < b[1] else "intervals touch"
                said.append(f"{task} {a[0]:+.1f} against {b[0]:+.1f} points ({where})")
            fa = f"FA@1 {ours['forget_acc1'].mean():.1%} against {theirs['forget_acc1'].mean():.1%}"
            lines.append(f"* {kind}, SLUG against {method}: {'; '.join(said)}; {fa}.")
    outside = report[report["inside_grid"].eq(False)]
    for _, r in outside.iterrows():
        lines.append(f"* {r['name']}, {r['method']}: the chosen setting ({r['layer']}) is at the end of its grid.")
    return "\n".join(lines)


def bench_table(frame):
    """Markdown of results/bench/table.csv: how long the search takes, plain and fast, and without each part."""
    lines = [
        "| model | case | pictures | names | fast s | plain s | plain / fast | floor / fast | peak memory MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for _, r in frame.iterrows():
        plain, ratio = ("", "") if math.isnan(r["plain_s"]) else (f"{r['plain_s']:.0f}", f"{r['ratio']:.1f}")
        layers = f", {r['layers']:.0f} layers" if r["case"].startswith("growth") else ""
        lines.append(
            f"| {r['model']} | {r['case']}{layers} | {r['n_images']} | {r['n_names']} | {r['fast_s']:.1f} | {plain} | "
            f"{ratio} | {r['limit_share']:.0%} | {r['peak_mem_mb']:.0f} |"
        )
    return "\n".join(lines)


def canvas(frame, features, note=""):
    """Markdown of results/uncanvas/table.csv: the mean over concepts of each kind with its t interval, a row a method.

    Args:
        features: whose features FID was taken of.
        note: what else is to be said of FID.
    """
    lines = [
        "| forgotten | method | concepts | UA | IRA | CRA | IRA, CRA of the original's | "
        f"FID ({features}) | seconds | peak memory MB | to store kB (share) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    slug = [f"{m}{more}{end}" for m in gradient_files.SLUG for more in ("", "_rounds") for end in ("", "_lora")]
    order = {m: i for i, m in enumerate(("original", *slug, "uce", "esd"))}
    groups = sorted(frame.groupby(["kind", "method"]), key=lambda g: (g[0][0] != "style", order.get(g[0][1], len(order))))
    for (kind, method), part in groups:
        whole = frame[(frame["kind"] == kind) & (frame["method"] == "original")]
        cells = " | ".join(_cell(part[c]) for c in ("UA", "IRA", "CRA"))
        judged = [c for c in ("IRA", "CRA") if whole[c].notna().any()]
        cells += " | " + ", ".join(f"{part[c].mean() / whole[c].mean():.1%}" for c in judged)
        cost = " | | |"
        if method != "original":
            cost = f"{part['seconds'].mean():.0f} | {part['peak_mem_mb'].mean():.0f} | "
            cost += f"{part['storage_bytes'].mean() / 1e3:.0f} ({part['params_share'].mean():.1%}) |"
        fid = part["FID"].iloc[0]
        lines.append(f"| {kind}s | {method} | {len(part)} | {cells} | {'' if math.isnan(fid) else f'{fid:.1f}'} | {cost}")
    lines += ["", note] if note else []
    chosen = frame[frame["inside_grid"].isin([True, False])] if "inside_grid" in frame else frame[:0]
    for method, part in chosen.groupby("method"):
        ends = part[part["inside_grid"].eq(False)]
        if len(ends):
            said = ", ".join(f"{r['name']} ({r['layer']})" for _, r in ends.iterrows())
            of = f"{len(ends)} of {len(part)} concepts"
            lines += ["", f"{method}: the chosen setting still stands at an end of its grid for {of}: {said}."]
    return "\n".join(lines)


def assistant(frame, kinds):
    """Markdown of results/vlm/table.csv: a row a name and the means over names, then what is said instead, then utility by
    kind of question.

    Args:
        kinds: DataFrame with a row a name and kind of question: name, kind, before, after (accuracies), n.
    """
    before, after = frame[frame["method"] == "original"].set_index("name"), frame[frame["method"] != "original"]
    stay = {"identities": "other identities", "objects": "objects", "utility": "utility"}
    heads = ["name", "layer", "step", "forget before", "after (of pictures at most)", "answers / pictures / drawings"]
    heads += ["unseen drawings before", "after (n)", *(f"{said}, points (95%), n" for said in stay.values())]
    lines = [f"| {' | '.join([*heads, 'seconds', 'delta kB (share)'])} |", "|---" * (len(heads) + 2) + "|"]
    for row in after.to_dict("records"):
        old, changes = before.loc[row["name"]], []
        for part in stay:
            change, low, high = (100 * row[f"{part}_change{end}"] for end in ("", "_low", "_high"))
            changes.append(f"{change:+.1f} ({low:+.1f} to {high:+.1f}), {row[f'n_{part}']:.0f}" if row[f"n_{part}"] else "")
        cells = [
            row["name"],
            f"`{row['layer']}`",
            f"{row['step']:.3g}",
            f"{old['forget_acc']:.1%}",
            f"{row['forget_acc']:.1%} ({row['forget_upper']:.1%})",
            f"{row['n_forget']:.0f} / {row['n_pictures']:.0f} / {row['n_drawings']:.0f}",
            f"{old['forget_unseen_acc']:.1%}",
            f"{row['forget_unseen_acc']:.1%} ({row['n_forget_unseen']:.0f})",
            *changes,
            f"{row['seconds']:.0f}",
            f"{row['storage_bytes'] / 1e3:.0f} ({row['params_share']:.1%})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    points = [f"{c} {_cell(after[f'{c}_acc'])}% from {_cell(before[f'{c}_acc'])}%" for c in ("forget", *stay)]
    lines += ["", f"Means over {len(after)} names (95% t interval): {'; '.join(points)}.", ""]
    lines += ["| name | says instead (answers) | the commonest | names that it knows |", "|---|---|---|---|"]
    for row in after.to_dict("records"):
        lines.append(f"| {row['name']} | {row['said_instead']} | {row['commonest_share']:.0%} | {row['known_share']:.0%} |")
    lines += ["", "| kind of question | before | after, mean over names | n |", "|---|---|---|---|"]
    for kind, part in kinds.groupby("kind", sort=False):
        lines.append(f"| {kind} | {part['before'].mean():.1%} | {part['after'].mean():.1%} | {part['n'].mean():.0f} |")
    return "\n".join(lines)


def assistant_curve(frame, plot):
    """Markdown of results/vlm/curve.csv: means over names at each multiple of their steps, and the plot of each name.

    Args:
        plot: its file, beside the report.
    """
    stay = {"identities": "other identities", "objects": "objects", "utility": "utility"}
    heads = ["step, times the chosen one", "names", "forget, %", "forget, unseen drawings, %"]
    heads += [f"{said}, points" for said in stay.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for factor, part in frame.groupby("factor"):
        cells = [f"{factor:g}", str(len(part)), _cell(part["forget_acc"]), _cell(part["forget_unseen_acc"])]
        for column in (f"{c}_change" for c in stay):
            mean, low, high = mean_interval(100 * part[column]) if column in part else (math.nan,) * 3
            cells.append("" if math.isnan(mean) else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Means over names with 95% t intervals; name by name: [the curves]({plot})."])


def _paired(row, column):
    """A paired change with its interval, in points, of the columns of unlearn.changes."""
    change, low, high = (100 * row[f"{column}_change{end}"] for end in ("", "_low", "_high"))
    return f"{change:+.2f} ({low:+.2f} to {high:+.2f})"


def multi(frame, matrices=()):
    """Markdown of results/clip/multi/table.csv: a row a count of names and way of adding their edits up, then a row a name
    whose edit was taken out again.

    Args:
        matrices: paths of the cosine matrices to link.
    """
    lines = [
        "| names | way | FA@1 of all (upper bound) | worst name | pictures / drawings | "
        "other identities, points (95%) | n | other objects, points (95%) | n | factors |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    taken_out = frame["method"].str.endswith(REVERTED)
    summed, reverted = frame[~taken_out], frame[taken_out]
    for (count, method), part in summed.groupby(["count", "method"], sort=False):
        whole, own = part[part["name"] == "all"].iloc[0], part[part["name"] != "all"]
        worst = own.loc[own["forget_acc1"].idxmax()]
        stays = [f"{_paired(whole, task)} | {whole[f'n_{task}']:.0f}" for task in ("identities", "objects")]
        factors = ", ".join(f"{f:.2f}" for f in own["factor"])
        left = (
            f"; {whole['n_left_validation']:.0f} not forgotten on the validation split" if whole["n_left_validation"] else ""
        )
        lines.append(
            f"| {count} | {method} | {whole['forget_acc1']:.1%} (at most {whole['forget_upper']:.1%}) | {worst['name']} "
            f"{worst['forget_acc1']:.1%} | {whole['n_forget']:.0f} / {whole['n_drawings']:.0f} | {' | '.join(stays)} | "
            f"{factors}{left} |"
        )
    lines += [
        "",
        f"Names in their order: {frame['names'].iloc[-1]}. All, less one edit:",
        "",
        "| taken out | of | its accuracy before | after (95%) | change, points (95%) | pictures / drawings | "
        "the others' accuracy (upper bound) | pictures / drawings |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, r in reverted.iterrows():
        lines.append(
            f"| {r['name']} | {r['method'].removesuffix(REVERTED)} | {r['forget_before']:.1%} | "
            f"{r['forget_acc1']:.1%} ({r['forget_low']:.1%} to {r['forget_upper']:.1%}) | {_paired(r, 'forget')} | "
            f"{r['n_forget']:.0f} / {r['n_drawings']:.0f} | {r['others_acc1']:.1%} (at most {r['others_upper']:.1%}) | "
            f"{r['n_others']:.0f} / {r['n_others_drawings']:.0f} |"
        )
    if matrices:
        links = ", ".join(f"[{i}]({path})" for i, path in enumerate(matrices, 1))
        lines += ["", f"Cosines of pictures and names before and after, all together: {links}."]
    return "\n".join(lines)


def multi_parts(parts):
    """README's block: `multi` of all names of each part, [(frame, matrices)], below what it is of."""
    texts = []
    for frame, matrices in parts:
        frame = frame[frame["count"] == frame["count"].max()]
        named = frame[~frame["method"].str.endswith(REVERTED) & (frame["name"] != "all")].drop_duplicates("name")
        counts = named.groupby(["kind", "task"], sort=False).size().items()
        of = [f"{n} {task if n > 1 else kind}" for (kind, task), n in counts]
        edits = frame["edits"].iloc[0] if "edits" in frame else "slug"  # tables of earlier versions do not say it
        texts += [f"**{' and '.join(of)}, {edits}**", multi(frame, matrices)]
    return "\n\n".join(texts)


def latex(frame):
    """The comparison as a LaTeX tabular (booktabs)."""
    rows = []
    for (kind, method), part in compared(frame).groupby(["kind", "method"], observed=True):
        figures = {"FA@1": "forget_acc1", "identities": "identities_acc1", "objects": "objects_acc1"}
        row = {"forgotten": kind, "method": method.replace("_", r"\_"), "names": len(part)}
        row |= {what: _cell(part[column]) for what, column in figures.items()}
        rows.append(row | {"MIA": f"{part['mia_mean'].mean():.1f}", "seconds": f"{part['seconds'].mean():.1f}"})
    return pd.DataFrame(rows).to_latex(index=False)


def has_baselines(frame):
    """Whether anything but SLUG was run."""
    return bool(set(frame["method"]) - {"original", "slug", "slug_o", "slug_w", "slug_ws"})


def draw_steps(record, folder):
    """The step-size curves of one of SLUG's records, from the CSV of its steps in the same folder."""
    start, *rows = (SimpleNamespace(**r) for r in pd.read_csv(folder / records.steps_file(record)).to_dict("records"))
    curves = {}
    for row in rows:
        curves.setdefault(row.layer, []).append(row)
    figures, settings = record["splits"]["validation"]["original"], record["settings"]
    counts = {"forget": figures["n_forget"]}
    counts |= {t: min(figures[f"n_{t}"], settings["select_pictures"] or math.inf) for t in ("identities", "objects")}
    stem = folder / records.file_name(record["model"], record["name"], "", "steps")
    plots.steps(
        curves, start, SimpleNamespace(**record["winner_validation"]), counts, record["name"], stem, settings["trace"]
    )


def update_block(text, key, content):
    """`text` with what stands between `<!-- key -->` and `<!-- /key -->` replaced; SlugError if the marks are missing."""
    pattern = re.compile(rf"(<!-- {key} -->\n).*?(<!-- /{key} -->)", re.S)
    if not pattern.search(text):
        raise SlugError(f"no <!-- {key} --> ... <!-- /{key} --> to fill")
    return pattern.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text)


def fill_blocks(path, blocks):
    """`update_block` in a Markdown file: {key: content}. SlugError if the file or a mark is missing."""
    path = files.existing(path, "README", "give --readme")
    text = path.read_text(encoding="utf-8")
    for key, content in blocks.items():
        text = update_block(text, key, content)
    files.write_text(path, text)


def publish(path, text, key, readme="", quoted=None):
    """Write a report's Markdown, print it, and fill the block `key` of the Markdown file `readme`, where one is given, with
    the same text, or with `quoted`, whose links are from there."""
    files.write_text(path, text + "\n")
    print(text)
    if readme:
        fill_blocks(readme, {key: quoted or text})


def write(folder, frame):
    """Write table.csv and report.md; returns the table as a reader of the file has it, rounded, so that texts agree."""
    files.write_text(folder / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    frame = pd.read_csv(folder / "table.csv")
    files.write_text(folder / "report.md", markdown(frame))
    if has_baselines(frame):
        files.write_text(folder / "comparison.tex", latex(frame))
    return frame
