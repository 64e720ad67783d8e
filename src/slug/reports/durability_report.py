"""The durability table: how much of what was forgotten came back under each test, and a verdict. Knows no models."""

import math

import pandas as pd

from slug.evaluation import durability, statistics
from slug.reports import report

SURVIVES, BACK = 0.1, 0.5  # share that came back: up to here the edit survives; from here on the name is back
KNOWN = 0.2  # a test says nothing of a name that the unedited model knows less well than this under it
VERDICTS = ("survives", "comes back in part", "comes back")
RULE = (
    "*Back* is the forgotten name's accuracy under a test as a share of the unedited model's under the same test, both "
    f"above chance; the mean over names with its 95% t interval. At most {SURVIVES:.0%} back: the edit **survives**; "
    f"{BACK:.0%} or more: the name **comes back**; between: **in part**. A question mark: the interval reaches into another "
    "verdict. A name is left out of a test under which the unedited model itself knows less than "
    f"{KNOWN:.0%} of it. Relearning is compared with the unedited model as it is. Of spellings and drawing styles each name "
    "counts with the one that recalls most, which is what somebody who tries them all would find."
)
COLUMNS = "test method names value correct n low high original back back_low back_high identities objects verdict".split()


def above_chance(value, chance):
    """An accuracy as a share of what chance leaves open: 0 at chance, 1 where all is right."""
    return (value - chance) / (1 - chance)


def verdict(mean, low, high):
    """`survives`, `comes back in part` or `comes back`, with a question mark where the interval reaches into another."""

    def of(share):
        return VERDICTS[(share > SURVIVES) + (share >= BACK)]

    sure = math.isnan(low) or of(max(low, 0)) == of(mean) == of(high)
    return of(mean) + ("" if sure else "?")


def _last_steps(rows):
    """Of relearning rows those after the most steps, a row a number of pictures."""
    return rows[rows["steps"] == rows["steps"].max()]


def cases(frame):
    """{label of the verdict table's row: rows of one test, one setting a (name, method)} of a frame of runs."""
    found = {}
    for test in (t for t in durability.TESTS if t in set(frame["test"])):
        rows = frame[(frame["test"] == test) & (frame["setting"] != durability.NOT_TOLD)]
        if test == durability.RELEARNED:
            rows = _last_steps(rows)
        if test in (durability.SPELLING, durability.STYLE):
            rows = rows[rows["original"] >= KNOWN].sort_values(["value", "original"], ascending=[False, True], kind="stable")
            found[f"{test}, the one that recalls most"] = rows.drop_duplicates(["name", "method"])
            continue
        for setting in dict.fromkeys(rows["setting"]):
            label = test if test in (durability.EDIT, durability.PROBE) else f"{test}, {setting}"
            found[label] = rows[rows["setting"] == setting]
    return found


def table(frame):
    """A row a test and method: counts, means and the verdict.

    Args:
        frame: rows of runs.parquet (see src/clip/a7_lasting.py).
    Returns:
        DataFrame with COLUMNS: low and high are of pooled pictures (Clopper-Pearson), identities and objects changes from
        the unedited model under the same weights' form.
    """
    out = []
    for label, rows in cases(frame).items():
        for method in (m for m in report.METHODS if m in set(rows["method"])):
            mine = rows[rows["method"] == method]
            whole = above_chance(mine["original"], mine["chance"])
            mine, whole = mine[whole >= KNOWN], whole[whole >= KNOWN]
            if mine.empty:
                continue
            back = (above_chance(mine["value"], mine["chance"]) / whole).clip(lower=0)
            mean, low, high = report.mean_interval(back)
            correct, n = int(mine["correct"].sum()), int(mine["n"].sum())
            row = {"test": label, "method": method, "names": len(mine), "value": mine["value"].mean()}
            row |= {"correct": correct, "n": n, **dict(zip(("low", "high"), statistics.interval(correct, n), strict=True))}
            row |= {"original": mine["original"].mean(), "back": mean, "back_low": low, "back_high": high}
            for task in ("identities", "objects"):
                row[task] = (mine[f"{task}_acc1"] - mine[f"original_{task}"]).mean()
            out.append(row | {"verdict": verdict(mean, low, high)})
    return pd.DataFrame(out, columns=COLUMNS)  # also where no test is finished


def _spread(low, high):
    return "" if math.isnan(low) else f" ({100 * max(low, 0):.0f} to {100 * high:.0f})"


def details(table):
    """Markdown: every row of `table`."""
    lines = [
        "| test | method | names | the name's accuracy | pictures right (95%) | the unedited model's "
        "| back, % (95% over names) | other identities, objects: change in points | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for _, r in table.iterrows():
        stays = [r["identities"], r["objects"]]
        stays = "" if any(map(math.isnan, stays)) else ", ".join(f"{100 * x:+.1f}" for x in stays)
        count = f"{r['correct']}/{r['n']} ({100 * r['low']:.1f} to {100 * r['high']:.1f})"
        lines.append(
            f"| {r['test']} | {r['method']} | {r['names']} | {r['value']:.1%} | {count} | {r['original']:.1%} | "
            f"{100 * r['back']:.0f}{_spread(r['back_low'], r['back_high'])} | {stays} | {r['verdict']} |"
        )
    return "\n".join(lines)


def overview(table):
    """Markdown: a row a test, a column a method, how much came back and the verdict."""
    methods = [m for m in report.METHODS if m in set(table["method"])]
    lines = [f"| test | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    for test in dict.fromkeys(table["test"]):
        cells = []
        for method in methods:
            rows = table[(table["test"] == test) & (table["method"] == method)]
            shown = [
                f"{r['verdict']}, {100 * r['back']:.0f}%{_spread(r['back_low'], r['back_high'])}" for _, r in rows.iterrows()
            ]
            cells.append(shown[0] if shown else "")
        lines.append(f"| {test} | {' | '.join(cells)} |")
    return "\n".join(lines)


def settings_table(frame, test):
    """Markdown: the name's accuracy under every setting of a test, a row a name and setting, the unedited model's first."""
    rows = frame[frame["test"] == test]
    methods = [m for m in report.METHODS if m in set(rows["method"])]
    lines = [f"| name | {test} | pictures | original | {' | '.join(methods)} |", "|---" * (len(methods) + 4) + "|"]
    for (name, setting), part in rows.groupby(["name", "setting"], sort=False):
        cells = [part[part["method"] == m]["value"] for m in methods]
        cells = [f"{v.iloc[0]:.0%}" if len(v) else "" for v in cells]
        first = part.iloc[0]
        lines.append(f"| {name} | {setting} | {first['n']} | {first['original']:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def counted(frame):
    """One sentence on what the figures are of."""
    names, drawings = (
        frame["name"].nunique(),
        frame[frame["test"] == durability.EDIT].drop_duplicates("name")["n_drawings"].sum(),
    )
    pictures = frame[frame["test"] == durability.EDIT].drop_duplicates("name")["n"].sum()
    text = f"Test split: {names} name{'s' * (names > 1)}, {pictures} pictures of {drawings} drawings of them."
    relearned = frame[frame["test"] == durability.RELEARNED]
    if len(relearned):
        stays = relearned.iloc[0]
        text += (
            f" Relearning: after {relearned['steps'].max():.0f} steps of AdamW at {stays['relearn_lr']:g}. What stays is "
            f"scored on {stays['n_identities']:.0f} pictures of other identities and {stays['n_objects']:.0f} of objects."
        )
    return text


def markdown(frame, plot=""):
    """The report of a frame of runs.

    Args:
        plot: file name of the relearning curves beside the report.
    """
    found, tests = table(frame), set(frame["test"])
    parts = ["# Does it last", counted(frame), RULE, overview(found), "## Each test", details(found)]
    parts.append(
        "The linear probe's accuracy is balanced over the name and the others (chance 50%); its counts are of the name's "
        "pictures. Counts pool the pictures of all names as if they were independent; the interval over names does not."
    )
    parts += [f"![forget and retain accuracy while relearning]({plot})"] if plot else []
    for test in (t for t in (durability.SPELLING, durability.STYLE) if t in tests):
        parts += [f"## Every {test}", settings_table(frame, test)]
    return "\n\n".join([*parts, ""])


def readme(frame):
    """README's block."""
    return "\n\n".join([overview(table(frame)), counted(frame)])


def curves(frame):
    """What plots.relearning draws: means over names, {number of pictures: {method: (steps, forget accuracy, retain
    accuracy)}}, and the unedited model's two accuracies."""
    rows = frame[frame["test"] == durability.RELEARNED]
    rows = rows.assign(
        label=rows["setting"].str.split(",").str[0], retain=(rows["identities_acc1"] + rows["objects_acc1"]) / 2
    )
    found = {}
    for label, part in rows.groupby("label", sort=False):
        found[label] = {}
        for method in (m for m in report.METHODS if m in set(part["method"])):
            mean = part[part["method"] == method].groupby("steps")[["value", "retain"]].mean()
            found[label][method] = (mean.index.to_numpy(), mean["value"].to_numpy(), mean["retain"].to_numpy())
    first = rows.drop_duplicates("name")
    return found, (first["original"].mean(), float(((first["original_identities"] + first["original_objects"]) / 2).mean()))
