"""Tables of SLUG on a CLIP: table.csv from the records, a row for each name, means over names."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from slug import protocols, schema
from slug.reports import caveats, intervals, markdown
from slug.settings import MAX_FORGET

MARGINS = {"identities": 2, "objects": 1}  # points that retained accuracy may lose


def table(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A row for each name, split and method of JSON records (the unedited model included): results/clip/report/table.csv."""
    rows = []
    for record in records:
        limit = record.get("settings", {}).get("max_forget", MAX_FORGET)
        for split, states in record["splits"].items():
            for method, figures in states.items():
                row = {c: record.get(c) for c in ("name", "kind", "model", "seed")}
                row["protocol"] = record.get("protocol", protocols.OURS.name)
                row["max_forget"] = limit
                if method != schema.ORIGINAL:
                    row |= {c: record.get(c) for c in schema.CLIP_COLUMNS if c in record}
                    row |= caveats.of(record)
                    method = record["method"]
                rows.append({**row, **figures, "split": split, "method": method})
    # The limit only where one is not the usual: most tables have no such column.
    more = ["max_forget"] if any(row["max_forget"] != MAX_FORGET for row in rows) else []
    frame = pd.DataFrame(rows).reindex(columns=[*schema.CLIP_COLUMNS, *caveats.columns(rows), *more])
    frame = frame.sort_values(["split", "kind", "name", "method"], kind="stable")
    # Every method's record holds the figures of the unedited model, and they are the same.
    return frame.drop_duplicates(["model", "name", "split", "method"], ignore_index=True)


def of_test_split(frame: pd.DataFrame, slug_only: bool = False) -> pd.DataFrame:
    """The rows of the test split: all of them, or those of SLUG and its variants."""
    rows = frame[frame["split"] == "test"]
    return rows[rows["method"].map(schema.is_slug).astype(bool)] if slug_only else rows


def names_table(frame: pd.DataFrame) -> str:
    """Markdown: a row for each forgotten name, test split."""
    heads = (
        "name | kind | layer | step | FA@1 before | FA@1 after (upper bound) | pictures / source images | other identities, "
        "change in points (95%) | other objects, change in points (95%) | MIA before, % | MIA after, % | delta kB (share of "
        "weights)"
    )
    rows = of_test_split(frame)
    before = rows[rows["method"] == schema.ORIGINAL].drop_duplicates(["model", "name"]).set_index(["model", "name"])
    lines = []
    for _, r in of_test_split(frame, slug_only=True).sort_values(["kind", "name"], kind="stable").iterrows():
        was, changes = before.loc[r["model"], r["name"]], " | ".join(intervals.paired(r, task) for task in schema.TASKS)
        lines.append(
            f"{r['name']}{caveats.mark(r)} | {r['kind']} | "
            f"`{r['layer'].removesuffix('.weight')}` | {r['step']:.3g} | "
            f"{was['forget_acc1']:.1%} | {r['forget_acc1']:.1%} (at most {r['forget_upper']:.1%}) | "
            f"{r['n_forget']:.0f} / {r['n_drawings']:.0f} | {changes} | {was['mia_mean']:.1f} | {r['mia_mean']:.1f} | "
            f"{r['delta_bytes'] / 1e3:.0f} ({r['params_share']:.1%})"
        )
    return markdown.table(heads, lines)


def not_forgotten(frame: pd.DataFrame) -> list[str]:
    """What the marks of `names_table` say: a sentence for each name that was not forgotten; empty where all were."""
    return caveats.sentences(of_test_split(frame, slug_only=True))


def means(frame: pd.DataFrame) -> markdown.Table:
    """A row for each kind and method, means over names with 95% t intervals, test split."""
    accuracies = ["FA@1, %", "FA@5, %", "other identities @1, %", "other objects @1, %"]
    rows = []
    for (kind, method), part in intervals.groups(of_test_split(frame), ["kind", "method"]):
        cells = [intervals.cell(part[c]) for c in ("forget_acc1", "forget_acc5", "identities_acc1", "objects_acc1")]
        seconds = "" if method == schema.ORIGINAL else f"{part['seconds'].mean():.1f}"
        plural = {"identity": "identities", "object": "objects"}.get(kind, kind)
        rows.append([plural, method, str(len(part)), *cells, f"{part['mia_mean'].mean():.1f}", seconds])
    return markdown.Table(["forgotten", "method", "names", *accuracies, "MIA, %", "seconds"], rows)


def means_table(frame: pd.DataFrame) -> str:
    """`means` as Markdown."""
    return means(frame).text


def pooled(frame: pd.DataFrame) -> str:
    """Markdown list over all names: forgotten pictures still recognised, and paired changes against their margins."""
    rows, lines = of_test_split(frame, slug_only=True), []
    for kind, part in intervals.groups(rows, "kind"):
        correct = round((part["forget_acc1"] * part["n_forget"]).sum())
        lines.append(
            f"* {kind}: {correct} of {int(part['n_forget'].sum())} test pictures of {len(part)} forgotten names are still "
            f"recognised; the largest upper bound of a name is {part['forget_upper'].max():.1%}."
        )
    for task, margin in MARGINS.items():
        changes = rows[f"{task}_change"]
        found = [intervals.verdict(r, task, margin) for _, r in rows.iterrows()]
        counts = ", ".join(f"{found.count(v)} {v}" for v in ("within", "beyond", "not resolved") if v in found)
        worst = rows.iloc[int(changes.argmin())]["name"]
        lines.append(
            f"* other {task}: the mean change from the original is {intervals.change(changes, '+.2f')} points (95% "
            f"interval over names). By name, at a margin of {margin} point{'s' * (margin > 1)}: {counts}; the worst is "
            f"{100 * changes.min():+.2f} ({worst})."
        )
    return "\n".join(lines)
