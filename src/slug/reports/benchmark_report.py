"""The benchmark's table.csv and its page: leaderboards by tower, comparisons name by name, what gold models say."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from slug import schema
from slug.evaluation import statistics
from slug.reports import intervals, markdown, naming, ranking

MORE = (  # columns besides those of every CLIP's table
    "model_seed split_half run tower neighbours_acc1 neighbours_change n_neighbours forget_cos forget_rank "
    "sources_recognised forget_upper_sources retrieval_acc1 probe_acc alias_acc1 n_aliases gold_cos gold_acc1 gold_rank "
    "gold_mia gold_retrieval gold_probe gold_alias caveat"
).split()
GOLD = {"gold_cos": "forget_cos", "gold_acc1": "forget_acc1", "gold_rank": "forget_rank", "gold_mia": "mia_mean"}
GOLD |= {"gold_retrieval": "retrieval_acc1", "gold_probe": "probe_acc", "gold_alias": "alias_acc1"}
TOWERS = {"any": "any tower", "vision": "the vision tower alone", "language": "the language tower alone"}
REFERENCE = "slug"
WON = "A name is won by the method that forgets it where the other does not; else by the one that retains more."
HEADS = (
    "method | names | names forgotten | pictures recognised | drawings recognised | other identities, points | other "
    "objects, points | ten nearest names, points | distance to gold | MIA, % | seconds | peak MB | kB | inside its grid"
)


def table(records: Iterable[Mapping[str, Any]], gold: Mapping[str, Mapping[str, Any]], label: str) -> pd.DataFrame:
    """A row for each record and split, and for the unedited model: results/benchmark/table.csv.

    Args:
        gold: {name: figures of a model that never saw it}.
        label: of the protocol.
    """
    rows = []
    for record in records:
        never = {c: gold.get(record["name"], {}).get(of, math.nan) for c, of in GOLD.items()}
        about = {c: record.get(c) for c in ("name", "kind", "model", "seed", "model_seed", "split_half", "run")}
        for split, states in record["splits"].items():
            before = states[schema.ORIGINAL]
            for method, figures in states.items():
                row: dict[str, Any] = {**about, **never, "protocol": label, "tower": ""}
                if method != schema.ORIGINAL:
                    row |= {c: record[c] for c in (*schema.CLIP_COLUMNS, *MORE) if c in record} | {"protocol": label}
                    row["neighbours_change"] = figures.get("neighbours_acc1", math.nan) - before.get(
                        "neighbours_acc1", math.nan
                    )
                rows.append(row | dict(figures) | {"split": split, "method": method})
    frame = pd.DataFrame(rows).reindex(columns=[*schema.CLIP_COLUMNS, *MORE])
    frame = frame.sort_values(["split", "run", "kind", "name", "method", "tower"], kind="stable")
    return frame.drop_duplicates(["run", "name", "split", "method", "tower"], ignore_index=True)


def of_tower(frame: pd.DataFrame, tower: str) -> pd.DataFrame:
    """The rows of one leaderboard on the test split, and those of the unedited model.

    SLUG was searched for each; another method is in the one of a single tower if it left the other one alone: with the other
    tower's edit alone the pictures are recognised as before.
    """
    test = frame[frame["split"] == "test"]
    before = test[test["method"] == schema.ORIGINAL]
    ours = test["method"].map(schema.is_slug).astype(bool)
    own = test[ours & (test["tower"] == tower)]
    others = test[~ours & (test["method"] != schema.ORIGINAL)]
    if tower != "any":
        left_alone = "forget_language_acc1" if tower == "vision" else "forget_vision_acc1"
        was = others.merge(before[["run", "name", "forget_acc1"]], on=["run", "name"], suffixes=("", "_before"))
        same = (was[left_alone] - was["forget_acc1_before"]).abs() < 1e-9
        alone = {m for m, part in same.groupby(was["method"]) if part.all()}
        others = others[others["method"].isin(alone)]
    return pd.concat([before, own, others])


def _counts(rows: pd.DataFrame) -> list[str]:
    """Pictures and drawings that are recognised, with their bounds."""
    found = []
    for hits, n in (
        ((rows["forget_acc1"] * rows["n_forget"]).round().sum(), rows["n_forget"].sum()),
        (rows["sources_recognised"].sum(), rows["n_drawings"].sum()),
    ):
        low, high = statistics.interval(int(hits), int(n))
        found.append(f"{int(hits)} of {int(n)} ({100 * low:.1f} to {100 * high:.1f}%)")
    return found


def leaderboard(rows: pd.DataFrame, max_forget: float) -> str:
    """Markdown: a row for each method; those that forget most names first, of equals those that retain most."""
    lines = []
    for method in naming.in_order(rows["method"]):
        part = rows[rows["method"] == method]
        edited = method != schema.ORIGINAL
        forgotten = int((part["forget_acc1"] <= max_forget + 1e-9).sum())
        changes = [intervals.change(part[c].dropna()) if edited else "" for c in ("identities_change", "objects_change")]
        changes.append(intervals.change(part["neighbours_change"].dropna()) if edited else "")
        distance = (part["forget_cos"] - part["gold_cos"]).dropna()
        gold = f"{distance.mean():+.3f} ({len(distance)} names)" if len(distance) else "-"
        seconds, memory, size = (part[c].mean() for c in ("seconds", "peak_mem_mb", "delta_bytes"))
        costs = [f"{seconds:.1f}", f"{memory:.0f}", f"{size / 1e3:.0f}"] if edited else [""] * 3
        known = part["inside_grid"].dropna().astype(bool)
        inside = f"{int(known.sum())} of {len(known)}" if len(known) else ""
        counts, mia = _counts(part), f"{part['mia_mean'].mean():.1f}"
        lines.append(
            (
                (edited, forgotten, part[["identities_change", "objects_change"]].mean().mean() if edited else 0.0),
                [
                    naming.in_words(method),
                    len(part),
                    forgotten if edited else "",
                    *counts,
                    *changes,
                    gold,
                    mia,
                    *costs,
                    inside,
                ],
            )
        )
    return markdown.table(HEADS, [row for _, row in sorted(lines, key=lambda line: line[0], reverse=True)])


LEFT = {  # figures of what is left, in words, with the column of the gold model
    "forget_vision_acc1": ("recognised by the vision tower alone", ""),
    "alias_acc1": ("recognised under another name", "gold_alias"),
    "retrieval_acc1": ("found by another picture of it", "gold_retrieval"),
    "probe_acc": ("told apart by a probe", "gold_probe"),
    "forget_rank": ("median rank of the name", "gold_rank"),
    "mia_mean": ("MIA", "gold_mia"),
}


def what_is_left(rows: pd.DataFrame) -> str:
    """Markdown: for each method, how the name's pictures are still found, and what a model says that never saw the name.

    Each cell is a mean over names, of the same names for gold.
    """
    lines = []
    for method in naming.in_order(rows["method"]):
        part, cells = rows[rows["method"] == method], []
        for column, (_, gold) in LEFT.items():
            unit = 1 if column in ("forget_rank", "mia_mean") else 100
            known = part[column].dropna()
            cell = f"{unit * known.mean():.1f}" if len(known) else "-"
            both = part[[column, gold]].dropna() if gold and gold in part else part[:0]
            if len(both):
                cell += f" ({unit * both[column].mean():.1f}, gold {unit * both[gold].mean():.1f}; {len(both)} names)"
            cells.append(cell)
        lines.append([naming.in_words(method), len(part), *cells])
    words = " | ".join(f"{w}{'' if c == 'forget_rank' else ', %'}" for c, (w, _) in LEFT.items())
    return markdown.table(f"method | names | {words}", lines)


WHAT_IS_LEFT = (
    "*What is left.* Someone who must remove a likeness needs more than a name that is no longer called. The vision tower "
    "alone: with the prompts of the unedited model. Another name: the best of its synonyms. Another picture: the nearest "
    "picture of another source image shows the same name. Probe: balanced accuracy of logistic regression on picture "
    "features; 50% is chance. In brackets the same figure on the names that a gold model never saw, and that model's."
)


def comparisons(rows: pd.DataFrame, max_forget: float) -> str:
    """Markdown: every method against SLUG, name by name."""
    heads, lines = "names | won | lost | retained, difference in points (95%) | sign test | Holm", []
    for pair in ranking.against(rows[rows["method"] != schema.ORIGINAL], REFERENCE, max_forget):
        mean, low, high = pair.change
        change = f"{mean:+.2f}{intervals.spread(low, high, '+.2f')}"
        lines.append(
            [naming.in_words(pair.method), pair.names, pair.won, pair.lost, change, f"{pair.p:.3g}", f"{pair.corrected:.3g}"]
        )
    return markdown.table(f"against {naming.in_words(REFERENCE)} | {heads}", lines) if lines else ""


def spread_of_models(frame: pd.DataFrame) -> str:
    """Markdown: for each method that was run on several models or splits, the standard deviation of its figures over names,
    models and splits; "" where there is one of each."""
    rows = of_tower(frame, "any")
    rows = rows[rows["method"] != schema.ORIGINAL]
    columns = ["identities_change", "objects_change", "forget_acc1"]
    lines = []
    for method in naming.in_order(rows["method"]):
        part = rows[rows["method"] == method]
        means, of_names = (100 * part.groupby(by)[columns].mean() for by in ("run", "name"))
        if len(means) > 1:
            spreads = [f"{table[c].std():.2f}" for table in (of_names, means) for c in columns]
            lines.append([naming.in_words(method), len(means), len(of_names), *spreads])
    figures = "identities | objects | FA@1"
    heads = f"method | models and splits | names | over names: {figures} | over models and splits: {figures}"
    return markdown.table(heads, lines) if lines else ""


def without_margins(frame: pd.DataFrame, said: Mapping[str, Any], max_forget: float) -> str:
    """Markdown: for each method what the margin rule costs and gains, name by name; "" where no run was without it."""
    heads = "method | names | forgotten with | without | retained without the margins, change in points (95%)"
    lines, rows = [], of_tower(frame, "any")
    rows = rows[rows["method"] != schema.ORIGINAL]
    for run in said.get("runs", ()):
        if not run.get("rule"):
            continue
        same = [r for r in said["runs"] if not r.get("rule") and all(r[k] == run[k] for k in ("model", "splits"))]
        beside = same[0]["folder"] if same else ""
        for method in naming.in_order(rows[rows["run"] == run["folder"]]["method"]):
            mine = rows[rows["method"] == method].set_index("name")
            ours, theirs = (mine[mine["run"] == folder] for folder in (beside, run["folder"]))
            names = ours.index.intersection(theirs.index)
            if len(names):
                kept = [t.loc[names, ["identities_change", "objects_change"]].mean(axis=1) for t in (theirs, ours)]
                gone = [int((t.loc[names, "forget_acc1"] <= max_forget + 1e-9).sum()) for t in (ours, theirs)]
                lines.append([naming.in_words(method), len(names), *gone, intervals.change(kept[0] - kept[1], "+.2f")])
    return markdown.table(heads, lines) if lines else ""


def page(
    frame: pd.DataFrame, said: Mapping[str, Any], label: str, left_out: Mapping[str, int], plots: Mapping[str, str]
) -> str:
    """The page of the benchmark.

    Args:
        said: the protocol.
        left_out: {why: files}.
        plots: {tower: name of the picture of mean ranks}.
    """
    limit = said["rule"]["max_forget"]
    names = frame["name"].nunique()
    parts = [
        "# Benchmark of unlearning in CLIP",
        f"Protocol {label} ([docs/protocol.md](../../docs/protocol.md#the-benchmark)): mini-CLIP on EmojiCanvas, {names} "
        f"names, {frame['run'].nunique()} runs. All figures are of the test split. A name counts as forgotten where at most "
        f"{100 * limit:g}% of its test pictures are recognised. Changes are against the unedited model, with 95% t "
        "intervals over names. *Distance to gold* is the mean cosine of a name's pictures with its prompt minus that of a "
        "model which never saw the name: 0 is what never having learned it looks like.",
    ]
    for tower, words in TOWERS.items():
        rows = of_tower(frame, tower)
        first = rows[rows["run"] == said["runs"][0]["folder"]] if said.get("runs") else rows
        first = first if len(first) else rows
        if first[first["method"] != schema.ORIGINAL].empty:
            continue
        parts += [f"## Edits of {words}", leaderboard(first, limit)]
        parts += [WHAT_IS_LEFT, what_is_left(first)]
        if made := comparisons(first, limit):
            parts += [made, WON]
        if tower in plots:
            parts.append(markdown.figure("mean ranks", plots[tower], "Mean ranks of methods over names, on the test split."))
    if margins := without_margins(frame, said, limit):
        parts += ["## With and without the margin rule", margins]
    ruled = [run["folder"] for run in said.get("runs", ()) if run.get("rule")]
    if spread := spread_of_models(frame[~frame["run"].isin(ruled)]):
        parts += ["## How much of the spread is that of the model", "Standard deviations in points.", spread]
    if left_out:
        parts.append("Left out: " + ", ".join(f"{n} files {why}" for why, n in left_out.items()) + ".")
    return "\n\n".join(parts) + "\n"
