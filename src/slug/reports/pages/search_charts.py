"""Charts of a search for pages: Pareto fronts, step curves, and forget against retained accuracy of all candidates."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from slug.reports import naming, searches
from slug.reports.pages.charts import IN_TURN, NARROW, Axis, Chart, Point, Series, around
from slug.schema import TASKS, layer_label

Row = Mapping[str, Any]
DASHES = ("", "6 3")
PAIRS = "gradients of the forget and the retain set"  # what figures are of: of pairs, which no split contains
VALIDATION = "validation split"


def full_label(layer: str) -> str:
    """A layer's name, shortened, with its encoder; of a baseline its setting."""
    if " " in layer:
        return layer
    return f"{'vision' if layer.startswith('vis') else 'text'} {layer_label(layer)}"


def pareto(layers: Sequence[Row], front: Sequence[Row], chosen: str, encoder: str) -> Chart:
    """Importance against |alignment| of one encoder's layers, with its front; rows have name, importance, alignment."""
    on_front = {row["name"] for row in front}

    def points(rows: Iterable[Row]) -> list[Point]:
        found = sorted(rows, key=lambda r: abs(r["alignment"]))
        return [Point(abs(r["alignment"]), r["importance"], layer_label(r["name"])) for r in found]

    others = [r for r in layers if r["name"] not in on_front and r["name"] != chosen]
    winner = [r for r in (*layers, *front) if r["name"] == chosen][:1]
    series = [Series(f"other layers ({len(others)})", points(others), "muted", small=True)]
    series.append(Series(f"Pareto front ({len(front)})", points(front), "c0", "circle", line=True))
    if winner:
        series.append(Series("winner", points(winner), "c1", "star"))
    every = [p for s in series for p in s.points]
    x = around([p.x for p in every], "alignment: |cosine of forget and retain gradient|", scale="log")
    y = around([p.y for p in every], "importance: gradient / weight norm", scale="log")
    heads = ("layer", "|alignment|", "importance")
    return Chart(f"Layers of the {encoder} encoder", x, y, [s for s in series if s.points], heads=heads, of=PAIRS)


def _curve(rows: pd.DataFrame, start: Mapping[str, Any] | pd.Series, task: str, label: str) -> list[Point]:
    exact, trace = searches.curve(rows, start, task)
    values = np.where(np.isnan(exact), trace, exact)
    return [
        Point(
            step,
            100 * value,
            f"{label}, step {step:.4g}: {100 * value:.1f}%{' (estimated)' if hollow else ''}",
            bool(hollow),
        )
        for step, value, hollow in zip(rows["step"], values, np.isnan(exact), strict=True)
        if not np.isnan(value)
    ]


def steps(
    rows: pd.DataFrame,
    start: Mapping[str, Any] | pd.Series,
    winner: Row,
    tasks: Mapping[str, str],
    counts: Mapping[str, int],
    forgotten: float,
    retained: Sequence[str] = TASKS,
    of: str = VALIDATION,
) -> list[Chart]:
    """Accuracy against the step, a chart for each task; the winner's layer and the runner-up are in colour.

    Args:
        rows: candidates without the unedited model `start`.
        tasks: {column without _acc1: words}, of which "forget" comes first.
        forgotten: forget accuracy up to which a name counts as forgotten.
        retained: the tasks by which the runner-up is found.
        of: the pictures that the accuracies are of.
    """
    order = searches.best_layers(rows, winner, retained)
    found = []
    for task, words in tasks.items():
        column, base = f"{task}_acc1", 100 * float(start[f"{task}_acc1"])
        series = []
        for i, layer in reversed(list(enumerate(order))):
            part = rows[rows["layer"] == layer].sort_values("step", kind="stable")
            kind = ("winner's layer", "runner-up")[i] if i < 2 else "other layers"
            label = f"{kind}: {full_label(layer)}" if i < 2 else kind
            look: dict[str, Any] = (
                {"color": f"c{i}", "shape": IN_TURN[i], "dash": DASHES[i]} if i < 2 else {"color": "muted"}
            )
            series.append(Series(label, _curve(part, start, task, full_label(layer)), line=True, small=i > 1, **look))
        if not np.isnan(value := 100 * float(winner.get(column, np.nan))):
            says = f"chosen: {full_label(winner['layer'])}, step {winner['step']:.4g}: {value:.1f}%"
            series.append(Series("chosen", [Point(winner["step"], value, says)], "ink", "star"))
        low, high = (-4.0, 104.0) if task == "forget" else (max(np.nanmin([base - 10, value - 3]), -4), min(base + 3, 104))
        found.append(
            Chart(
                f"{words} (n\u00a0=\u00a0{counts.get(task, 0):,})",
                around(rows["step"], "step size", scale="log"),
                Axis("pictures, %", low, high),
                [s for s in series if s.points],
                [(base, "unedited model")],
                (0, 100 * forgotten) if task == "forget" else None,
                f"forgotten: up to {forgotten:.0%}" if task == "forget" else "",
                heads=("candidate", "step", "pictures, %"),
                size=NARROW,
                of=of,
            )
        )
    return found


def tradeoff(
    methods: Mapping[str, pd.DataFrame],
    chosen: Mapping[str, Row],
    forgotten: float,
    what: str,
    title: str,
    of: str = VALIDATION,
) -> Chart:
    """Forget against retained accuracy of every candidate of every method.

    Args:
        methods: {method: candidates with layer, step, forget_acc1 and retain, the unedited model first}.
        chosen: {method: the candidate that was chosen}.
        what: which retained accuracy it is.
        of: the pictures that the accuracies are of.
    """
    series, start = [], None
    for i, (method, rows) in enumerate(methods.items()):
        label, start = naming.label(method), rows.iloc[0]
        points = [_candidate(r, label) for _, r in rows.iloc[1:].dropna(subset=["retain"]).iterrows()]
        series.append(Series(f"{label} ({len(points)})", points, f"c{i % 8}", IN_TURN[i % 7], small=True))
    for i, (method, row) in enumerate(chosen.items()):
        point = _candidate(row, f"chosen: {naming.label(method)}")
        shape = "star" if i == 0 else IN_TURN[i % 7]
        label = f"{naming.label(method)} ({len(methods[method].iloc[1:].dropna(subset=['retain']))})"
        series.append(Series(label, [point], f"c{i % 8}", shape))
    if start is not None:
        x, y = 100 * float(start["forget_acc1"]), 100 * float(start["retain"])
        series.append(Series("unedited model", [Point(x, y, f"unedited model: {_pair(x, y)}")], "ink", "square"))
    series = [s for s in series if s.points]
    y_axis = around([p.y for s in series for p in s.points], what)
    x_axis = Axis("forget accuracy (FA@1), %", -4, 104)
    band = (-4.0, 100 * forgotten)
    heads = ("candidate", "forget accuracy, %", "retained, %")
    label = f"forgotten: up to {forgotten:.0%}"
    return Chart(title, x_axis, y_axis, series, (), band, label, band_of_x=True, heads=heads, of=of)


def that_forget(
    methods: Mapping[str, pd.DataFrame], chosen: Mapping[str, Row], forgotten: float, what: str, of: str = VALIDATION
) -> Chart:
    """Retained accuracy of the candidates that forget, method by method, as in `tradeoff`; from 20 points below the unedited
    model's."""
    names, series, base = [naming.label(m) for m in methods], [], 0.0
    for i, (method, rows) in enumerate(methods.items()):
        base = 100 * float(rows.iloc[0]["retain"])
        some = rows.iloc[1:].dropna(subset=["retain"])
        few = [_candidate(r, names[i]) for _, r in some[some["forget_acc1"] <= forgotten].iterrows()]
        spread = [0.5 * (k % 7 - 3) / 7 for k in range(len(few))]  # or equal accuracies hide each other
        points = [p._replace(x=i + dx) for p, dx in zip(few, spread, strict=True)]
        series.append(Series(names[i], points, f"c{i % 8}", IN_TURN[i % 7], small=True))
        best = _candidate(chosen[method], f"chosen: {names[i]}")._replace(x=float(i))
        series.append(Series(names[i], [best], f"c{i % 8}", "star" if i == 0 else IN_TURN[i % 7]))
    axes = Axis("method", -0.6, len(names) - 0.4, names=tuple(names)), Axis(what, base - 20, base + 3)
    heads = ("candidate", "method", "retained, %")
    title = f"Candidates that forget (up to {forgotten:.0%})"
    return Chart(title, *axes, [s for s in series if s.points], [(base, "unedited model")], heads=heads, of=of)


def _pair(x: float, y: float) -> str:
    return f"{x:.1f}% forget accuracy, {y:.1f}% retained"


def _candidate(row: Row | pd.Series, label: str) -> Point:
    x, y = 100 * float(row["forget_acc1"]), 100 * float(row["retain"])
    layer = str(row["layer"])
    step = "no." if " " in layer else "step"  # the settings of baselines have a blank, and their candidates a number
    return Point(x, y, f"{label}, {full_label(layer)}, {step} {row['step']:.4g}: {_pair(x, y)}")
