"""Names forgotten by an assistant: the tables of results/vlm/."""

import pandas as pd

from slug import schema
from slug.reports import caveats, intervals, markdown, rules

PUBLISHED = (
    "Scored as published: an answer is right if the right one is contained in its first 16 tokens, in upper or lower case."
)
RETAINED = {"identities": "other identities", "objects": "objects", "utility": "utility"}


def _names(after: pd.DataFrame, before: pd.DataFrame) -> str:
    """A row for each name."""
    changes = " | ".join(f"{said}, change in points (95%), n" for said in RETAINED.values())
    heads = (
        "name | layer | step | forget accuracy before | after (upper bound by pictures) | answers / pictures / source "
        f"images | unseen source images before | after (n) | {changes} | seconds | delta kB (share of weights)"
    )
    rows = []
    for r in after.to_dict("records"):
        old = before.loc[r["name"]]
        lost = [f"{intervals.paired(r, p, '+.1f')}, {r[f'n_{p}']:.0f}" if r[f"n_{p}"] else "" for p in RETAINED]
        rows.append(
            f"{r['name']}{caveats.mark(r)} | `{r['layer']}` | {r['step']:.3g} | "
            f"{old['forget_acc']:.1%} | {r['forget_acc']:.1%} "
            f"({r['forget_upper']:.1%}) | {r['n_forget']:.0f} / {r['n_pictures']:.0f} / {r['n_drawings']:.0f} | "
            f"{old['forget_unseen_acc']:.1%} | {r['forget_unseen_acc']:.1%} ({r['n_forget_unseen']:.0f}) | "
            f"{' | '.join(lost)} | {r['seconds']:.0f} | {r['storage_bytes'] / 1e3:.0f} ({r['params_share']:.1%})"
        )
    return markdown.table(heads, rows)


def _published(after: pd.DataFrame, before: pd.DataFrame) -> list[str]:
    """A row for each name scored as published, beside ours; nothing for a table of before this scoring."""
    if "forget_published_acc" not in after or after["forget_published_acc"].isna().all():
        return []
    parts = {"forget": "forget accuracy", "retain": "naming of others", "utility": "utility"}
    heads = "name | " + " | ".join(f"{said}, ours: before, after | as published: before, after" for said in parts.values())
    rows = []
    for r in after.to_dict("records"):
        old, cells = before.loc[r["name"]], []
        for part in parts:
            for column in (f"{part}_acc", f"{part}_published_acc"):
                known = not pd.isna(r[column])
                cells.append(f"{old[column]:.1%}, {r[column]:.1%}" if known else "")
        rows.append([r["name"], *cells])
    return [f"{PUBLISHED}\n\n{markdown.table(heads, rows)}"]


def rows_report(frame: pd.DataFrame) -> str:
    """Markdown of rows.csv: a user's own questions, by both scorings."""
    heads = "name | own questions | n | ours: before, after | as published: before, after"
    rows = [
        [r["name"], r["part"], r["n"], f"{r['before']:.1%}, {r['after']:.1%}",
         f"{r['before_published']:.1%}, {r['after_published']:.1%}"]
        for r in frame.to_dict("records")
    ]  # fmt: skip
    return markdown.table(heads, rows)


def report(frame: pd.DataFrame, kinds: pd.DataFrame) -> str:
    """Markdown of table.csv: each name, means over names, what is answered instead, and utility by kind of question.

    Args:
        kinds: a row for each name and kind of question: name, kind, before, after (accuracies), n.
    """
    before = frame[frame["method"] == schema.ORIGINAL].set_index("name")
    after = frame[frame["method"] != schema.ORIGINAL]
    means = "; ".join(
        f"{c} {intervals.cell(after[f'{c}_acc'])}%, before {intervals.cell(before[f'{c}_acc'])}%"
        for c in ("forget", *RETAINED)
    )
    instead = [
        f"{r['name']} | {r['said_instead']} | {r['commonest_share']:.0%} | {r['known_share']:.0%}"
        for _, r in after.iterrows()
    ]
    by_kind = [
        f"{kind} | {part['before'].mean():.1%} | {part['after'].mean():.1%} | {part['n'].mean():.0f}"
        for kind, part in intervals.groups(kinds, "kind", sort=False)
    ]
    parts = [
        _names(after, before),
        *caveats.sentences(after),
        *_left_out(frame),
        f"Mean accuracies over {len(after)} names (95% t interval): {means}.",
    ]
    parts.append(markdown.table("name | answers instead (count) | share of the commonest | share of known names", instead))
    parts.append(markdown.table("kind of question | before | after, mean over names | n", by_kind))
    return "\n\n".join([*parts, *_published(after, before), rules.line(frame)])


def _left_out(frame: pd.DataFrame) -> list[str]:
    """How many pictures of the questions could not be used, in words; nothing where all were."""
    said = list(frame["left_out"].dropna()) if "left_out" in frame else []
    return [f"Questions without a usable picture are left out; pictures: {said[0]}."] if said else []


def curve_title(frame: pd.DataFrame) -> str:
    """The title of the plot of curve.csv."""
    return f"Multiples of the chosen steps: mean over {frame['name'].nunique()} names (thick), and each name"


def curve_report(frame: pd.DataFrame, plot: str) -> str:
    """Markdown of curve.csv: means over names at each multiple of their steps, and a link to the plot of each name.

    Args:
        plot: path of the plot from the report's folder.
    """
    heads = "multiple of the chosen step | names | forget accuracy, % | forget accuracy, unseen source images, % | "
    heads += " | ".join(f"{said}, change in points" for said in RETAINED.values())
    rows = []
    for factor, part in intervals.groups(frame, "factor"):
        changes = [f"{p}_change" for p in RETAINED]
        cells = [intervals.cell(part[c]) for c in ("forget_acc", "forget_unseen_acc")]
        cells += [intervals.change(part[c]) if c in part else "" for c in changes]
        rows.append([f"{factor:g}", len(part), *cells])
    return (
        f"{markdown.table(heads, rows)}\n\nMeans over names with 95% t intervals. Means and "
        f"each name, on the test split: [the curves]({plot})."
    )
