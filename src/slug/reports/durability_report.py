"""How durable edits are: how much of a forgotten name each test recovers, and a verdict."""

import math
from typing import Any

import numpy as np
import pandas as pd

from slug import schema
from slug.evaluation import statistics
from slug.reports import intervals, markdown, naming, rules

SURVIVES, BACK = 0.1, 0.5  # recovered share: up to here the edit survives; from here on the name comes back
KNOWN = 0.2  # a test tells nothing about a name that the unedited model knows less well than this under it
VERDICTS = ("survives", "comes back in part", "comes back")
RULE = (
    "*Recovered* is the forgotten name's accuracy under a test as a share of the unedited model's under the same test, both "
    f"above chance: the mean over names with its 95% t interval. If at most {SURVIVES:.0%} is recovered, the edit "
    f"**survives**; if {BACK:.0%} or more is, the name **comes back**; between, it comes back **in part**. A question mark "
    "means that the interval reaches into another verdict. A name is left out of a test under which the unedited model "
    f"itself knows less than {KNOWN:.0%} of it. Relearning is compared with the unedited model as it is. Of spellings and "
    "drawing styles, each name counts with the one that recovers most, which is what somebody who tries them all would find."
)
RELEARNING = (
    "Forget accuracy (above) and retained accuracy (below) of each method while it is fine-tuned on pictures of the "
    "forgotten name, mean over names, on the test split."
)
PROBE_NOTE = (
    "The accuracy of the linear probe is balanced over the name and the others (chance is 50%); its counts are of the "
    "name's pictures. Counts pool the pictures of all names as if they were independent; the interval over names does not."
)


def above_chance(value: pd.Series, chance: pd.Series) -> pd.Series:
    """An accuracy as a share of what chance leaves open: 0 at chance, 1 if everything is right."""
    return (value - chance) / (1 - chance)


def verdict(mean: float, low: float, high: float) -> str:
    """One of VERDICTS, with a question mark if the interval reaches into another one."""

    def of(share: float) -> str:
        return VERDICTS[(share > SURVIVES) + (share >= BACK)]

    sure = math.isnan(low) or of(max(low, 0)) == of(mean) == of(high)
    return of(mean) + ("" if sure else "?")


def cases(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{row of the verdict table: runs of one test, one setting for each (name, method)}."""
    found = {}
    for test in (t for t in schema.TESTS if t in set(frame["test"])):
        rows = frame[(frame["test"] == test) & (frame["setting"] != schema.NOT_TOLD)]
        if test == schema.RELEARNED:
            rows = rows[rows["steps"] == rows["steps"].max()]
        if test in (schema.SPELLING, schema.STYLE):
            rows = rows[rows["original"] >= KNOWN].sort_values(["value", "original"], ascending=[False, True], kind="stable")
            found[f"{test} that recovers most"] = rows.drop_duplicates(["name", "method"])
            continue
        for setting in dict.fromkeys(rows["setting"]):
            label = test if test in (schema.EDIT, schema.PROBE) else f"{test}, {setting}"
            found[label] = rows[rows["setting"] == setting]
    return found


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each test and method: counts, means and the verdict.

    Args:
        frame: rows of results/lasting/runs.parquet.
    Returns:
        schema.DURABILITY_COLUMNS: low and high are of pooled pictures (Clopper-Pearson); identities and objects are changes
        from the unedited model with its weights in the same form.
    """
    out: list[dict[str, Any]] = []
    for label, rows in cases(frame).items():
        for method in naming.in_order(rows["method"]):
            mine = rows[rows["method"] == method]
            whole = above_chance(mine["original"], mine["chance"])
            mine, whole = mine[whole >= KNOWN], whole[whole >= KNOWN]
            if mine.empty:
                continue
            mean, low, high = intervals.mean_interval((above_chance(mine["value"], mine["chance"]) / whole).clip(lower=0))
            correct, n = int(mine["correct"].sum()), int(mine["n"].sum())
            row = {"test": label, "method": method, "names": len(mine), "value": mine["value"].mean()}
            row |= {"correct": correct, "n": n, **dict(zip(("low", "high"), statistics.interval(correct, n), strict=True))}
            row |= {"original": mine["original"].mean(), "back": mean, "back_low": low, "back_high": high}
            row |= {task: (mine[f"{task}_acc1"] - mine[f"original_{task}"]).mean() for task in schema.TASKS}
            out.append(row | {"verdict": verdict(mean, low, high)})
    return pd.DataFrame(out, columns=schema.DURABILITY_COLUMNS)  # the columns are there without a finished test too


def _recovered(row: pd.Series, unit: str = "") -> str:
    low, high = 100 * max(row["back_low"], 0), 100 * row["back_high"]
    return f"{100 * row['back']:.0f}{unit}{intervals.spread(low, high, '.0f')}"


def details(table: pd.DataFrame) -> str:
    """Markdown: every row of `table`."""
    heads = (
        "test | method | names | accuracy on the name | pictures recognised (95%) | accuracy of the unedited model | "
        "recovered, % (95% over names) | other identities, objects: change in points | verdict"
    )
    rows = []
    for _, r in table.iterrows():
        changes = [r[task] for task in schema.TASKS]
        retained = "" if any(map(math.isnan, changes)) else ", ".join(f"{100 * x:+.1f}" for x in changes)
        count = f"{r['correct']}/{r['n']} ({100 * r['low']:.1f} to {100 * r['high']:.1f})"
        figures = [f"{r['value']:.1%}", count, f"{r['original']:.1%}", _recovered(r), retained]
        rows.append([r["test"], r["method"], r["names"], *figures, r["verdict"]])
    return markdown.table(heads, rows)


def overview(table: pd.DataFrame) -> str:
    """Markdown: a row for each test, a column for each method: the verdict and how much was recovered."""
    order = naming.in_order(table["method"])
    cells = {(r["test"], r["method"]): f"{r['verdict']}, {_recovered(r, '%')}" for _, r in table.iterrows()}
    tests = dict.fromkeys(table["test"])
    return markdown.table(" | ".join(["test", *order]), [[t, *(cells.get((t, m), "") for m in order)] for t in tests])


def settings_table(frame: pd.DataFrame, test: str) -> str:
    """Markdown: the accuracy on the name, a row for each name and setting of a test."""
    frame = frame[frame["test"] == test]
    order, rows = naming.in_order(frame["method"]), []
    for (name, setting), part in intervals.groups(frame, ["name", "setting"], sort=False):
        found = dict(zip(part["method"], part["value"], strict=True))
        first = part.iloc[0]
        values = [f"{found[m]:.0%}" if m in found else "" for m in order]
        rows.append([name, setting, first["n"], f"{first['original']:.0%}", *values])
    return markdown.table(" | ".join(["name", test, "pictures", schema.ORIGINAL, *order]), rows)


def counted(frame: pd.DataFrame) -> str:
    """What the figures are of."""
    edits = frame[frame["test"] == schema.EDIT].drop_duplicates("name")
    names, relearned = frame["name"].nunique(), frame[frame["test"] == schema.RELEARNED]
    pictures, sources = edits["n"].sum(), edits["n_drawings"].sum()
    text = f"Test split: {names} name{'s' * (names > 1)}, {pictures} pictures of {sources} source images."
    if relearned.empty:
        return text
    first = relearned.iloc[0]
    return (
        f"{text} Relearning: after {relearned['steps'].max():.0f} steps of AdamW at a learning rate of "
        f"{first['relearn_lr']:g}. Retained accuracy is measured on {first['n_identities']:.0f} pictures of other "
        f"identities and {first['n_objects']:.0f} of objects."
    )


def report(frame: pd.DataFrame, plot: str = "") -> str:
    """The report on a table of runs.

    Args:
        plot: file name of the relearning curves beside the report.
    """
    frame, gold = apart(frame)
    found, tests = table(frame), set(frame["test"])
    parts = ["# Durability of edits", counted(frame), rules.line(frame), RULE, overview(found)]
    parts += ["## Beside a model that never knew", BEYOND, beyond_gold(frame, gold)] if len(gold) else []
    parts += ["## Each test", details(found), PROBE_NOTE]
    parts += [markdown.figure("relearning curves", plot, RELEARNING)] if plot else []
    for test in (t for t in (schema.SPELLING, schema.STYLE) if t in tests):
        parts += [f"## Every {test}", settings_table(frame, test)]
    return "\n\n".join([*parts, ""])


def apart(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the rows of edits, those of models that never saw the names)."""
    gold = frame["method"] == schema.GOLD
    return frame[~gold], frame[gold]


BEYOND = (
    "The accuracy on the name under a test less that of a model that never saw the name (gold) under the same test, in "
    "points: the mean over names with its 95% t interval, and gold's own mean. What gold shows as well did not come back: "
    "it was learned anew, or can be told without having been learned. Of spellings and drawing styles gold, too, counts "
    "with the one that shows most."
)


def beyond_gold(frame: pd.DataFrame, gold: pd.DataFrame) -> str:
    """Markdown: a row for each test, a column for each method, of the names that gold models never saw."""
    order, lines = naming.in_order(frame["method"]), []
    # A name is left out where `table` leaves it out; of several settings gold has those that the edits have.
    known = frame[above_chance(frame["original"], frame["chance"]) >= KNOWN]
    keys = ["name", "test", "setting"]
    beside = gold.drop(columns="original", errors="ignore").merge(known[[*keys, "original"]].drop_duplicates(keys), on=keys)
    of_gold = cases(beside)
    for label, rows in cases(known).items():
        cells, never = dict[str, str](), of_gold.get(label, beside[:0]).set_index("name")["value"]
        for method in order:
            mine = rows[rows["method"] == method].set_index("name")["value"]
            both = mine.index.intersection(never.index)
            if len(both):
                cells[method] = f"{intervals.change(mine[both] - never[both])}, {len(both)} names"
        if cells:
            lines.append([label, f"{100 * never.mean():.1f}%", *(cells.get(m, "") for m in order)])
    return markdown.table(" | ".join(["test", "gold", *order]), lines)


def page_block(frame: pd.DataFrame) -> str:
    """What a page on durability quotes."""
    frame, gold = apart(frame)
    more = [BEYOND, beyond_gold(frame, gold)] if len(gold) else []
    return "\n\n".join([rules.line(frame), overview(table(frame)), *more, counted(frame)])


def title(frame: pd.DataFrame) -> str:
    """The title of the plot of relearning."""
    names = frame["name"].nunique()
    return f"Fine-tuning on pictures of the forgotten name, mean over {names} name{'s' * (names > 1)}"


Curves = dict[str, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]


def curves(frame: pd.DataFrame) -> tuple[Curves, tuple[float, float]]:
    """What plots.relearning draws, means over names: {number of pictures: {method: (steps, forget accuracy, retained
    accuracy)}}, and (forget, retained) accuracy of the unedited model."""
    frame, _ = apart(frame)
    rows = frame[frame["test"] == schema.RELEARNED]
    retain = (rows["identities_acc1"] + rows["objects_acc1"]) / 2
    rows = rows.assign(label=rows["setting"].str.split(",").str[0], retain=retain)
    found: Curves = {}
    for label, part in intervals.groups(rows, "label", sort=False):
        found[label] = {}
        for method in naming.in_order(part["method"]):
            mean = part[part["method"] == method].groupby("steps")[["value", "retain"]].mean()
            found[label][method] = (mean.index.to_numpy(), mean["value"].to_numpy(), mean["retain"].to_numpy())
    first = rows.drop_duplicates("name")
    return found, (first["original"].mean(), float(((first["original_identities"] + first["original_objects"]) / 2).mean()))
