"""SLUG beside the baselines, on the names that every method was run on."""

import pandas as pd

from slug import schema
from slug.reports import caveats, clip_tables, intervals, markdown, naming, rules

PUBLISHED = {  # paper, Table 1: FA@1, TA_CA@1, TA_IN@1, MIA in %; ViT-B-32 laion400m_e32, mean of five identities
    "original": "73.05, 61.38, 60.12, 72.81",
    "ft": "66.08, 60.7, 60.36, 72.42",
    "ga": "0, 24.92, 35.88, 89.96",
    "gaft": "0, 25.71, 55.52, 90.75",
    "salun": "0, 26.11, 55.45, 90.55",
    "ssd": "0, 35.96, 51.84, 80.58",
    "slug": "0, 58.32, 59.96, -",
}


def has_baselines(frame: pd.DataFrame) -> bool:
    """Whether any method but SLUG was run."""
    return not all(schema.is_slug(m) for m in set(frame["method"]) - {schema.ORIGINAL})


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """The test split of the names that every method was run on, with methods in the order of tables."""
    rows = clip_tables.of_test_split(frame)
    order = naming.in_order(rows["method"])
    names = set.intersection(*(set(rows[rows["method"] == m]["name"]) for m in order)) if order else set()
    rows = rows[rows["name"].isin(names)]
    return rows.assign(method=pd.Categorical(rows["method"], order, ordered=True))


def beside(frame: pd.DataFrame) -> markdown.Table:
    """A row for each kind and method with its changes from the original, beside the paper's figures."""
    heads = ["forgotten", "method", "names", "FA@1, %", "FA@1, % with one edited tower: vision, language"]
    heads += ["other identities @1, %", "change in points", "other objects @1, %", "change in points"]
    heads += ["MIA, % (published definition)", "candidates", "paper, Table 1: FA@1, TA_CA@1, TA_IN@1, MIA"]
    lines = []
    for (kind, method), rows in intervals.groups(compared(frame), ["kind", "method"], observed=True):
        cells, alone, tried = [], "", ""
        for task in schema.TASKS:
            change = "" if method == schema.ORIGINAL else intervals.change(rows[f"{task}_change"])
            cells += [f"{100 * rows[f'{task}_acc1'].mean():.1f}", change]
        if method != schema.ORIGINAL:
            towers = [rows[f"forget_{tower}_acc1"] for tower in ("vision", "language")]
            alone = ", ".join("-" if v.isna().any() else f"{100 * v.mean():.1f}" for v in towers)
            tried = f"{rows['n_candidates'].mean():.0f}"
        mia = f"{rows['mia_mean'].mean():.1f} ({rows['mia_others_mean'].mean():.1f})"
        paper = PUBLISHED.get(method, "") if kind == "identity" else ""
        method = f"{method}{caveats.of_part(rows)}"
        lines.append([kind, method, str(len(rows)), intervals.cell(rows["forget_acc1"]), alone, *cells, mia, tried, paper])
    return markdown.Table(heads, lines)


COSTS_NOTE = (
    "Means over names. SLUG's search is all its candidates. Peak memory is of the whole process: pictures, evaluation and, "
    "for SLUG, kept activations included."
)


def costs(rows: pd.DataFrame) -> markdown.Table:
    """What the chosen candidate of each method costs, mean over names; of rows of the test split."""
    heads = ["method", "forget pass, s", "search, or training of the chosen run, s", "all candidates, s"]
    heads += ["retain pass, once for all names, s", "peak memory, MB", "weights touched", "size on disk, kB"]
    lines = []
    for method, part in intervals.groups(rows[rows["method"] != schema.ORIGINAL], "method", observed=True):
        columns = ["gradient_s", "seconds", "search_s", "shared_s", "peak_mem_mb", "params_share", "delta_bytes"]
        forget, seconds, search, shared, memory, share, size = part[columns].mean()
        times = [f"{s:.1f}" for s in (forget, seconds - forget, search, shared)]
        lines.append([method, *times, f"{memory:.0f}", f"{share:.1%}", f"{size / 1e3:.0f}"])
    return markdown.Table(heads, lines)


def statements(frame: pd.DataFrame) -> str:
    """Markdown list: for each baseline, SLUG's retained accuracy against its own, by 95% t intervals over names."""
    lines, rows = [], compared(frame)
    for kind, part in intervals.groups(rows, "kind"):
        ours = part[part["method"] == "slug"]
        if len(ours) < 2:
            lines.append(f"* {kind}: SLUG was run on {len(ours)} name; an interval over names needs two.")
            continue
        for method in (m for m in naming.in_order(part["method"]) if m != schema.ORIGINAL and not schema.is_slug(m)):
            theirs, found = part[part["method"] == method], []
            for task in schema.TASKS:
                a, b = (intervals.points(p[f"{task}_change"]) for p in (ours, theirs))
                which = "SLUG retains more" if a[1] > b[2] else "SLUG retains less" if a[2] < b[1] else "intervals overlap"
                found.append(f"other {task} {a[0]:+.1f} against {b[0]:+.1f} points ({which})")
            accuracies = f"FA@1 {ours['forget_acc1'].mean():.1%} against {theirs['forget_acc1'].mean():.1%}"
            lines.append(f"* {kind}, SLUG against {naming.label(method)}: {'; '.join(found)}; {accuracies}.")
    for _, r in rows[rows["inside_grid"].eq(False)].iterrows():
        lines.append(f"* {r['name']}, {r['method']}: the chosen setting ({r['layer']}) is at the end of its grid.")
    return "\n".join(lines)


def parts(frame: pd.DataFrame) -> list[str]:
    """The comparison's table, its marks and statements, and costs."""
    said = [statements(frame), *caveats.sentences(compared(frame), method=True)]
    return [beside(frame).text, "\n\n".join(said), f"{costs(compared(frame)).text}\n\n{COSTS_NOTE}"]


def _mean(values: pd.Series) -> str:
    """A mean, or nothing where nothing was measured."""
    return "" if values.isna().all() else f"{values.mean():.1f}"


def latex(frame: pd.DataFrame) -> str:
    """The comparison as a LaTeX tabular (booktabs). Bold: the lowest FA@1; of the methods that forget the fewest seconds and
    the highest retained accuracies; each for one kind of name."""
    figures = {"FA@1": "forget_acc1", "identities": "identities_acc1", "objects": "objects_acc1", "seconds": "seconds"}
    rows = []
    for kind, part in intervals.groups(compared(frame), "kind"):
        means = part.groupby("method", observed=True)[list(figures.values())].mean().drop(schema.ORIGINAL)
        forgetting = means[means["forget_acc1"] <= rules.max_forget(frame) + 1e-9]
        best = {what: forgetting[c].max() for what, c in figures.items()} | {"seconds": forgetting["seconds"].min()}
        best["FA@1"] = means["forget_acc1"].min()
        for method, own in intervals.groups(part, "method", observed=True):
            row = {"forgotten": kind, "method": naming.in_words(method).replace("_", r"\_"), "names": len(own)}
            row |= {what: intervals.cell(own[c]) for what, c in figures.items() if what != "seconds"}
            row["seconds"] = "" if method == schema.ORIGINAL else _mean(own["seconds"])
            for what, c in figures.items():
                among = means if what == "FA@1" else forgetting
                if method in among.index and abs(among[c][method] - best[what]) < 1e-9:
                    row[what] = rf"\textbf{{{row[what]}}}"
            rows.append(row | {"MIA": _mean(own["mia_mean"])})
    return pd.DataFrame(rows).to_latex(index=False)
