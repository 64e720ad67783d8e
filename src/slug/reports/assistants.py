"""Names forgotten by an assistant: the tables of results/vlm/."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from slug import schema
from slug.reports import caveats, intervals, markdown, rules

PUBLISHED = (
    "Scored as published: an answer is right if the right one is contained in its first 16 tokens, in upper or lower case."
)
TARGET = 0.05  # mean forget accuracy, at most
# Ends of the columns of source images that training contained, that it did not, and of both.
SIDES = {"": "seen in training", "_unseen": "never seen", "_all": "all"}
LOST = "identities", "identities_unseen", "identities_all", "objects", "utility"
RETAINED = {"identities": "other identities", "objects": "objects", "utility": "utility"}


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows with edits, rows of the unedited model by name) of table.csv, both with figures of all source images."""
    frame = with_all(frame)
    return frame[frame["method"] != schema.ORIGINAL], frame[frame["method"] == schema.ORIGINAL].set_index("name")


def with_all(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with figures of all source images, computed from those of seen and unseen ones where it lacks them."""
    found = frame.copy()
    for part in ("forget", "identities"):
        counts = [f"n_{part}", f"n_{part}_unseen"]
        if f"{part}_all_acc" in found or not {*counts, f"{part}_unseen_acc"} <= {*found}:
            continue
        n = found[counts].fillna(0).to_numpy(float)
        right = (found[[f"{part}_acc", f"{part}_unseen_acc"]].fillna(0).to_numpy(float) * n).sum(1)
        found[f"n_{part}_all"] = n.sum(1)
        found[f"{part}_all_acc"] = right / n.sum(1)
    return found


def _counted(row: Mapping[Any, Any], end: str) -> str:
    """What an accuracy of forgetting rests on: its upper bound by pictures, and answers / pictures / source images."""
    answers = f"{row[f'n_forget{end}']:.0f}"
    if pd.isna(row.get(f"n_pictures{end}")):
        return f"({answers} answers)"
    counts = f"{answers} / {row[f'n_pictures{end}']:.0f} / {row[f'n_drawings{end}']:.0f}"
    bound = row.get(f"forget{end}_upper")
    return f"({counts})" if pd.isna(bound) else f"(at most {bound:.1%}; {counts})"


def _named(after: pd.DataFrame, before: pd.DataFrame) -> str:
    """How often each name is still given: for seen, unseen and all source images, before and after."""
    heads = " | ".join(f"{said}: before | after (answers / pictures / source images)" for said in SIDES.values())
    rows = []
    for r in after.to_dict("records"):
        cells = [f"{r['name']}{caveats.mark(r)}"]
        for end in SIDES:
            then, now = before.loc[r["name"]][f"forget{end}_acc"], r[f"forget{end}_acc"]
            known = not pd.isna(now)
            cells += [f"{then:.1%}", f"{now:.1%} {_counted(r, end)}"] if known else ["", "none asked"]
        rows.append(cells)
    means = ["mean"]
    for values in (f[f"forget{end}_acc"].dropna() for end in SIDES for f in (before, after)):
        means.append(f"{intervals.cell(values)}%" if len(values) else "")
    lines = [markdown.table(f"name | {heads}", [*rows, means])]
    if "n_pictures_all" not in after:
        lines.append(
            "This run counted pictures only of seen source images: the others have no upper bound by pictures here."
        )
    return "\n\n".join(lines)


def _target(after: pd.DataFrame) -> str:
    """Whether the target of forgetting is reached, by seen, unseen and all source images."""
    said = []
    for end, words in SIDES.items():
        values = after[f"forget{end}_acc"].dropna()
        if len(values):
            reached = "reached" if values.mean() <= TARGET else "missed"
            said.append(f"{words} {values.mean():.1%}, {reached}")
    return f"Target: a mean forget accuracy of at most {TARGET:.0%}. It counts for all source images: {'; '.join(said)}."


def _lost(after: pd.DataFrame, before: pd.DataFrame) -> str:
    """What each edit costs."""
    heads = "name | layer | step | other identities, seen | unseen | all | objects | utility | seconds | delta kB (share of "
    heads += "weights)"
    rows = []
    for r in after.to_dict("records"):
        cells = [_change(r, before.loc[r["name"]], part) for part in LOST]
        size = f"{r['storage_bytes'] / 1e3:.0f} ({r['params_share']:.1%})"
        rows.append(
            [f"{r['name']}{caveats.mark(r)}", f"`{r['layer']}`", f"{r['step']:.3g}", *cells, f"{r['seconds']:.0f}", size]
        )
    said = "Changes of accuracies in points (95% interval, where the run has one), and numbers of questions:"
    return f"{said}\n\n{markdown.table(heads, rows)}"


def _change(row: Mapping[Any, Any], old: Mapping[Any, Any], part: str) -> str:
    """A paired change in points, with its interval where the table has it, and the number of questions; empty for none."""
    n = row.get(f"n_{part}")
    if pd.isna(n) or not n:
        return ""
    if not pd.isna(row.get(f"{part}_change")):
        return f"{intervals.paired(row, part, '+.1f')}, {n:.0f}"
    return f"{100 * (row[f'{part}_acc'] - old[f'{part}_acc']):+.1f}, {n:.0f}"


def _published(after: pd.DataFrame, before: pd.DataFrame) -> list[str]:
    """A row for each name scored as published, beside ours; nothing for a table of before this scoring."""
    if "forget_published_acc" not in after or after["forget_published_acc"].isna().all():
        return []
    parts = {f"forget{end}": f"forget accuracy, {said}" for end, said in SIDES.items()}
    parts |= {"retain": "naming of others", "utility": "utility"}
    parts = {p: said for p, said in parts.items() if f"{p}_published_acc" in after}
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


WHOM = {"name": "of the name", "beside": "of others in the same picture", "others": "of others in other pictures"}
NO_PICTURE = (
    "The question without a picture does not pass through the vision tower. No edit of the vision tower can change its "
    "answer, so what the language model knows of the name by itself is out of reach by construction."
)


def probes_report(frame: pd.DataFrame, said: Mapping[str, str], text_only: str) -> str:
    """Markdown of probes.csv: each probe, before and after, as means over names.

    Args:
        said: {task: words} of the probes.
        text_only: the task of the probe without a picture.
    """
    heads = "probe | right answers | before, % | after, % | change in points | names | questions / pictures / source images"
    rows = []
    for task, words in said.items():
        for whom, of in WHOM.items():
            part = frame[(frame["probe"] == task) & (frame["whom"] == whom)]
            if len(part):
                counts = " / ".join(f"{part[c].sum():.0f}" for c in ("n", "n_pictures", "n_drawings"))
                cells = [intervals.cell(part["before"]), intervals.cell(part["after"]), intervals.change(part["change"])]
                rows.append([words, of, *cells, len(part), counts])
    lines = [
        "Probes: the name asked for in other ways. Means over names with 95% t intervals. What is right of the name is to "
        "be forgotten, what is right of others is to be kept. A probe that the unedited model fails says nothing of an "
        "edit. `probes.csv` has each name.",
        markdown.table(heads, rows),
    ]
    return "\n\n".join([*lines, *([NO_PICTURE] if text_only in set(frame["probe"]) else [])])


def report(frame: pd.DataFrame, kinds: pd.DataFrame) -> str:
    """Markdown of table.csv: each name, means over names, what is answered instead, and utility by kind of question.

    Args:
        kinds: a row for each name and kind of question: name, kind, before, after (accuracies), n.
    """
    after, before = _rows(frame)
    means = "; ".join(
        f"{words} {intervals.cell(after[f'{c}_acc'])}%, before {intervals.cell(before[f'{c}_acc'])}%"
        for c, words in RETAINED.items()
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
        _named(after, before),
        _target(after),
        _lost(after, before),
        *caveats.sentences(after),
        *_left_out(frame),
        f"Mean accuracies over {len(after)} names (95% t interval): {means}.",
    ]
    parts.append(markdown.table("name | answers instead (count) | share of the commonest | share of known names", instead))
    if by_kind:
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
    frame = with_all(frame)
    sides = " | ".join(f"forget accuracy, {said}, %" for said in SIDES.values())
    heads = f"multiple of the chosen step | names | {sides} | "
    heads += " | ".join(f"{said}, change in points" for said in RETAINED.values())
    rows = []
    for factor, part in intervals.groups(frame, "factor"):
        changes = [f"{p}_change" for p in RETAINED]
        cells = [intervals.cell(part[f"forget{end}_acc"]) for end in SIDES]
        cells += [intervals.change(part[c]) if c in part else "" for c in changes]
        rows.append([f"{factor:g}", len(part), *cells])
    return (
        f"{markdown.table(heads, rows)}\n\nMeans over names with 95% t intervals. Means and "
        f"each name, on the test split: [the curves]({plot})."
    )
