"""Several names forgotten at once: results/clip/multi/table.csv."""

from collections.abc import Iterable, Sequence

import pandas as pd

from slug import schema
from slug.reports import intervals, markdown, rules


def _sums(summed: pd.DataFrame) -> str:
    """A row for each number of names and way of adding their edits up."""
    heads = (
        "names | way | FA@1 of all (upper bound) | worst name | pictures / source images | other identities, change in "
        "points (95%) | n | other objects, change in points (95%) | n | factors"
    )
    rows = []
    for (count, method), part in intervals.groups(summed, ["count", "method"], sort=False):
        whole, own = part[part["name"] == "all"].iloc[0], part[part["name"] != "all"]
        worst = own.iloc[int(own["forget_acc1"].argmax())]
        changes = [cell for t in schema.TASKS for cell in (intervals.paired(whole, t), f"{whole[f'n_{t}']:.0f}")]
        factors, left = ", ".join(f"{f:.2f}" for f in own["factor"]), whole["n_left_validation"]
        factors += f"; {left:.0f} not forgotten on the validation split" if left else ""
        total = f"{whole['forget_acc1']:.1%} (at most {whole['forget_upper']:.1%})"
        sizes = f"{whole['n_forget']:.0f} / {whole['n_drawings']:.0f}"
        rows.append([count, method, total, f"{worst['name']} {worst['forget_acc1']:.1%}", sizes, *changes, factors])
    return markdown.table(heads, rows)


def _reverted(frame: pd.DataFrame) -> str:
    """A row for each name whose edit was reverted."""
    heads = (
        "reverted | in | its accuracy before any edit | after the revert (95%) | change in points (95%) | "
        "pictures / source images | accuracy of the others (upper bound) | pictures / source images"
    )
    rows = [
        f"{r['name']} | {r['method'].removesuffix(schema.REVERTED)} | {r['forget_before']:.1%} | "
        f"{r['forget_acc1']:.1%} ({r['forget_low']:.1%} to {r['forget_upper']:.1%}) | {intervals.paired(r, 'forget')} | "
        f"{r['n_forget']:.0f} / {r['n_drawings']:.0f} | {r['others_acc1']:.1%} (at most {r['others_upper']:.1%}) | "
        f"{r['n_others']:.0f} / {r['n_others_drawings']:.0f}"
        for _, r in frame.iterrows()
    ]
    return markdown.table(heads, rows)


def report(frame: pd.DataFrame, matrices: Iterable[str] = ()) -> str:
    """Markdown: the sums of edits, then the same with one edit reverted.

    Args:
        matrices: paths of the cosine matrices to link.
    """
    reverted = frame["method"].str.endswith(schema.REVERTED)
    parts = [
        _sums(frame[~reverted]),
        f"Names in their order: {frame['names'].iloc[-1]}. With the edit of one name reverted:",
    ]
    parts += [_reverted(frame[reverted]), rules.line(frame)]
    if links := ", ".join(f"[{i}]({path})" for i, path in enumerate(matrices, 1)):
        parts.append(f"Cosines of pictures and names before and after all edits, on the test split: {links}.")
    return "\n\n".join(parts)


def parts_report(parts: Iterable[tuple[pd.DataFrame, Sequence[str]]]) -> str:
    """A page's block: `report` on all names of each part, (table, matrices), under what the part consists of."""
    texts = []
    for frame, matrices in parts:
        frame = frame[frame["count"] == frame["count"].max()]
        named = frame[~frame["method"].str.endswith(schema.REVERTED) & (frame["name"] != "all")].drop_duplicates("name")
        counts = named.groupby(["kind", "task"], sort=False).size().items()
        of = [f"{n} {task if n > 1 else kind}" for (kind, task), n in counts]
        edits = frame["edits"].iloc[0] if "edits" in frame else "slug"  # tables of earlier versions lack the column
        texts += [f"**{' and '.join(of)}, {edits}**", report(frame, matrices)]
    return "\n\n".join(texts)
