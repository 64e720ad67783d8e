"""Styles and objects forgotten by a pipeline: the tables of results/uncanvas/."""

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slug import methods, schema
from slug.evaluation.statistics import interval
from slug.reports import caveats, intervals, markdown, naming, ranking, rules

SCORES = ("UA", "IRA", "CRA")
HIGH_UA = 0.25  # of the unedited pipeline, from which on a warning is given
SHARES = [0.8 + 0.005 * i for i in range(41)]  # of IRA and CRA, for each of which the best UA is given
KEPT_TARGET, ONE_LAYER_TARGET, ROUNDS_TARGET = 0.85, {"style": 0.86, "object": 0.75}, 0.95
REFERENCE, FORGOTTEN = "slug_w", 0.9  # the method that others are compared with, and the UA that counts as forgotten
# How concepts are forgotten together, as the column `how` of `together` names it.
HOW = (
    "`sum`: the edits of `{method}`, added up. `assigned`: candidates of their searches on layers that no two concepts "
    "share. `joint`: one system for each matrix that the edits move. Other names: a baseline on all concepts at once. All "
    "but `sum` choose their settings on the validation split."
)
# Words of the paragraphs of `report` that are made from the table itself.
NOTES = (caveats.MARK.strip(), "black all over", "at an end of its grid", "Warning: the unedited", "Methods beside `")


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of results/uncanvas/table.csv in its columns and order."""
    frame = frame.reindex(columns=[*schema.CANVAS_COLUMNS, *caveats.columns(frame.to_dict("records"))])
    return frame.sort_values(["kind", "method", "name"], ascending=[False, True, True])


def report(frame: pd.DataFrame, features: str, note: str = "") -> str:
    """Markdown of table.csv: a row for each kind and method, means over concepts with 95% t intervals.

    Args:
        features: the network whose features FID compares.
        note: what else there is to say about FID.
    """
    heads = (
        "forgotten | method | concepts | UA, % | IRA, % | CRA, % | IRA, CRA as a share of the original's | "
        f"FID ({features}) | seconds | peak memory, MB | size on disk, kB (share of weights)"
    )
    order, rows = naming.in_order(frame["method"]), []
    groups = intervals.groups(frame, ["kind", "method"])
    for (kind, method), part in sorted(groups, key=lambda g: (g[0][0] != "style", order.index(g[0][1]))):
        whole = frame[(frame["kind"] == kind) & (frame["method"] == schema.ORIGINAL)]
        judged = [c for c in ("IRA", "CRA") if whole[c].notna().any()]
        shares = ", ".join(f"{part[c].mean() / whole[c].mean():.1%}" for c in judged)
        cost = ["", "", ""]
        if method != schema.ORIGINAL:
            size = f"{part['storage_bytes'].mean() / 1e3:.0f} ({part['params_share'].mean():.1%})"
            cost = [f"{part['seconds'].mean():.0f}", f"{part['peak_mem_mb'].mean():.0f}", size]
        fid = part["FID"].iloc[0]
        cells = [*(intervals.cell(part[c]) for c in SCORES), shares, "" if math.isnan(fid) else f"{fid:.1f}"]
        rows.append([f"{kind}s", f"{method}{caveats.of_part(part)}", len(part), *cells, *cost])
    parts = [markdown.table(heads, rows), *([note] if note else []), *_left_out(frame), *_at_ends(frame)]
    return "\n\n".join([*parts, *compared(frame), rules.said(frame, canvas=True)])


def compared(frame: pd.DataFrame) -> list[str]:
    """Methods beside `REFERENCE`, concept by concept, as a sentence and a table; nothing where that method was not run."""
    heads = (
        "forgotten | method | concepts | won | lost | UA, change in points | mean of IRA and CRA, change in points | "
        "sign test p | p by Holm"
    )
    whole, rows = frame[(frame["method"] != schema.ORIGINAL) & ~frame["method"].str.endswith(schema.ADAPTER)], []
    whole = whole.assign(retained=100 * whole[["IRA", "CRA"]].mean(axis=1))
    whole = whole.assign(score=whole["retained"] + 1000 * (whole["UA"] >= FORGOTTEN - 1e-9))
    for kind in sorted(whole["kind"].unique(), reverse=True):
        part = whole[whole["kind"] == kind]
        for pair in ranking.pairs(part, REFERENCE):
            two = part[part["method"].isin([pair.method, REFERENCE])].assign(method=lambda f: f["method"].astype(str))
            forgot = ranking.by_name(two, "UA")
            ua = intervals.change(forgot[pair.method] - forgot[REFERENCE])
            kept = f"{pair.change[0]:+.1f}{intervals.spread(*pair.change[1:], '+.1f')}"
            rows.append(
                [
                    f"{kind}s",
                    pair.method,
                    pair.names,
                    pair.won,
                    pair.lost,
                    ua,
                    kept,
                    f"{pair.p:.3g}",
                    f"{pair.corrected:.3g}",
                ]
            )
    said = (
        f"Methods beside `{REFERENCE}`, on the same concepts. A concept is won by the method whose UA is {FORGOTTEN:.0%} or "
        "more where the other's is not, else by the higher mean of IRA and CRA. Intervals are 95% intervals over concepts."
    )
    return [said, markdown.table(heads, rows)] if rows else []


def _left_out(frame: pd.DataFrame) -> list[str]:
    """What the figures do not show: edits that did not forget, and pictures that are in no figure."""
    return [*caveats.sentences(frame, method=True), *_unknown(frame), *caveats.black(frame)]


def unknown(name: str, ua: float) -> str:
    """What to say of a concept that the unedited pipeline draws badly; empty where it draws it well."""
    return f"the unedited pipeline already scores a UA of {ua:.0%} for {name}" if ua >= HIGH_UA else ""


def _unknown(frame: pd.DataFrame) -> list[str]:
    """The concepts whose UA says little, because the unedited pipeline's is high already."""
    rows = frame[frame["method"] == schema.ORIGINAL].to_dict("records") if "UA" in frame else []
    said = list(dict.fromkeys(filter(None, (unknown(r["name"], r["UA"]) for r in rows))))
    return [f"Warning: {'; '.join(said)}. What is not drawn in the first place counts as forgotten."] if said else []


def _at_ends(frame: pd.DataFrame) -> list[str]:
    """For each method, the concepts whose chosen setting is at an end of its grid."""
    chosen = frame[frame["inside_grid"].isin([True, False])] if "inside_grid" in frame else frame[:0]
    said = []
    for method, part in intervals.groups(chosen, "method"):
        ends = part[part["inside_grid"].eq(False)]
        if len(ends):
            which = ", ".join(f"{r['name']} ({r['layer']})" for _, r in ends.iterrows())
            said.append(
                f"{method}: the chosen setting is at an end of its grid for {len(ends)} of {len(part)} concepts: {which}."
            )
    return said


def curve(steps: pd.DataFrame, shares: Sequence[float]) -> list[float]:
    """What a method can reach on the validation split: for each share, the mean over concepts of the best UA.

    The best UA is taken among the candidates that leave at least this share of the original's IRA, and of its CRA. A
    candidate that was given up early has neither and counts nowhere, so the true curve may lie higher.

    Args:
        steps: the candidates of a method: name, step, UA, IRA, CRA. Step 0 of each concept is the unedited pipeline.
    """
    best = []
    for _, part in intervals.groups(steps, "name"):
        start = part[part["step"] == 0].iloc[0]
        known = [c for c in ("IRA", "CRA") if not math.isnan(start[c])]
        left = part[known] / start[known]
        best.append([part.loc[(left >= share - 1e-9).all(axis=1), "UA"].max() for share in shares])
    return [statistics.fmean(values) for values in zip(*best, strict=True)]


def judged_by_clip(names: Iterable[str], counts: Iterable[int]) -> str:
    """What the figures rest on if a CLIP judged the pictures.

    Args:
        names: the objects among which it chose.
        counts: pictures of each object.
    """
    many = " or ".join(map(str, sorted(set(counts))))
    return (
        f"Judged by the unedited CLIP, zero-shot among {', '.join(names)}; {many} pictures of each, with seeds of the test "
        "split."
    )


def one_line(record: dict[str, Any]) -> str:
    """A pipeline's record in one line for the terminal."""
    before, after = record["original_validation"], record["winner_validation"]
    chosen = ", ".join(f"{layer} {step:.4g}" for layer, step in record["chosen"]) or "nothing"
    known = (f"{k} {before[k]:.1%} -> {after[k]:.1%}" for k in SCORES if not math.isnan(before[k]))
    return (
        f"{record['kind']} {record['name']}, {record['method']}: {chosen}; validation split: {', '.join(known)}; "
        f"{record['n_candidates']} candidates, {record['seconds']:.0f} s, delta {record['delta_bytes'] / 1e3:.0f} kB = "
        f"{record['params_share']:.2%} of the pipeline{schema.note(record)}"
    )


def tokens(frame: pd.DataFrame) -> str:
    """Markdown of tokens.csv: how often a concept is shown for its name, and for an optimised token."""
    heads = "forgotten | method | concepts | shown for its name | shown for an optimised token (95% interval) | pictures"
    rows = []
    for (kind, method), part in intervals.groups(frame, ["kind", "method"], sort=False):
        n, named, found = (int(part[c].sum()) for c in ("n", "by_name", "by_token"))
        low, high = interval(found, n)
        shares = (f"{named / n:.1%}", f"{found / n:.1%}{intervals.spread(low, high, '.1%')}") if n else ("", "")
        rows.append([f"{kind}s", method, len(part), *shares, n])
    return "\n\n".join([markdown.table(heads, rows), *_left_out(frame), rules.line(frame)])


def together(frame: pd.DataFrame, method: str) -> str:
    """Markdown of multi.csv: for each group and kind of concepts a row for each way in which they were forgotten together.

    Args:
        method: whose edits of single concepts were put together.
    """
    heads = (
        "together | UA of each (95%; of the original) | pictures of each | IRA | change in points (95%) | CRA | "
        "change in points (95%) | pictures of none"
    )
    ways = [m for m in dict.fromkeys(frame["method"]) if m != schema.ORIGINAL]
    several, rows = ways != [schema.WAYS[0]], []
    for (count, _, kind), part in intervals.groups(frame, ["count", "names", "kind"], sort=False):
        whole = part[part["method"] == schema.ORIGINAL].set_index("name")
        for way in [w for w in ways if (part["method"] == w).any()]:
            edited, retained = part[part["method"] == way], []
            each = "; ".join(
                f"{r['name']}{caveats.mark(r)} {r['UA']:.1%} ({r['UA_low']:.1%} to {r['UA_high']:.1%}; "
                f"{whole.loc[r['name'], 'UA']:.1%})"
                for _, r in edited.iterrows()
            )
            row = edited.iloc[0]
            for c in ("IRA", "CRA"):
                retained += [f"{whole[c].iloc[0]:.1%} to {row[c]:.1%}", intervals.paired(row, c, "+.1f")]
            counts = ", ".join(dict.fromkeys(str(n) for n in edited["n_own"]))
            of = f"the {kind}s of {count} concepts" if len(edited) < count else f"{count} {kind}s"
            rows.append([of, *([way] if several else []), each, counts, *retained, row["n_rest"]])
    first = f"The edits of `{method}`, added up:"
    if several:
        heads = heads.replace("together |", "together | how |")
        first = f"Several concepts forgotten together. {HOW.format(method=method)}"
    # The caveats of what is made of edits are those of the edits, one by one.
    alone = frame.assign(method=frame["method"].where(~frame["method"].isin(schema.WAYS), method))
    said = [*caveats.sentences(alone, method=True), *caveats.black(frame), rules.line(frame)]
    return "\n\n".join([first, markdown.table(heads, rows), *said])


def draw(steps: pd.DataFrame, floor: float, title: str, stem: Path) -> None:
    """The best UA that candidates reach at each share of IRA and CRA, beside the targets.

    Args:
        steps: rows of candidates.csv.
        floor: share below which the search evaluates no candidate in full.
        title: what the pipeline is called.
    """
    from slug.reports import plots

    panels: dict[str, Any] = {}
    for kind, part in intervals.groups(steps, "kind", sort=False):
        of = dict(intervals.groups(part, "method", sort=False))
        # A method in rounds has the candidates of its first round, too.
        whole = {m: [of[m], of.get(methods.first_round(m))] for m in naming.in_order(of)}
        curves = {m: curve(pd.concat(frames), SHARES) for m, frames in whole.items()}
        marks = {"target of one layer": (KEPT_TARGET, ONE_LAYER_TARGET[kind])}
        marks |= {"target of several rounds": (KEPT_TARGET, ROUNDS_TARGET)}
        panels[f"{part['name'].nunique()} {kind}s"] = SHARES, curves, marks
    plots.canvas(panels, floor, f"{title}: what candidates reach", stem)
