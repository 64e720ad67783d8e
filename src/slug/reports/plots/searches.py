"""Plots of one search: Pareto fronts, step curves, and what each candidate forgets and retains."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from slug.reports import searches
from slug.reports.plots.layout import STYLES, WIDTH, grid, legend_below, marker, save, step_axis
from slug.schema import layer_label
from slug.settings import MAX_FORGET

FORGOTTEN: dict[str, Any] = {"color": "C2", "alpha": 0.25, "lw": 0}  # the band of accuracies that count as forgotten


def pareto(rows: Sequence[Any], front: Sequence[Any], chosen: str | None, title: str, stem: Path) -> None:
    """Importance against |alignment| of one encoder's layers, with the Pareto front joined up and its layers named; half a
    column wide, so that both encoders stand side by side.

    Rows have `name`, `importance` and `alignment`; `chosen` is the winner layer, or None if it is in the other encoder.
    """
    figure, axes = plt.subplots(figsize=(WIDTH / 2, 3.0), layout="constrained")
    every = [abs(r.alignment) for r in rows], [r.importance for r in rows]
    axes.scatter(*every, s=8, facecolors="none", edgecolors="0.55", lw=0.6, label=f"all layers ({len(rows)})")
    line = sorted(front, key=lambda r: abs(r.alignment))
    x, y = [abs(r.alignment) for r in line], [r.importance for r in line]
    axes.plot(x, y, "-o", color="C0", ms=3, lw=1, label=f"Pareto front ({len(front)})")
    for r in line:
        if r.name == chosen:
            label = f"winner: {layer_label(r.name)}"
            axes.plot(abs(r.alignment), r.importance, "*", color="C1", ms=9, label=label, zorder=5)
    axes.set_yscale("log")
    axes.set_xlabel("alignment: |cosine of\nforget and retain gradient|")
    axes.set_ylabel("importance:\nforget gradient / weight norm")
    axes.set_title(title)
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1.6)
    _label_points(axes, x, y, [layer_label(r.name) for r in line])
    legend_below(figure, axes, 2)
    save(figure, stem)


def _label_points(axes: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[str]) -> None:
    """Name points at the right edge of the axes: each label is joined to its point and as near its height as fits."""
    order = np.argsort(y)
    own = axes.transAxes.inverted().transform(axes.transData.transform(np.c_[x, y]))[order, 1]
    gap = min(0.065, 0.96 / len(labels))
    lowest = np.maximum.accumulate(own - gap * np.arange(len(own))) + gap * np.arange(len(own))  # labels below push up
    heights = np.minimum(lowest, 0.98 - gap * np.arange(len(own))[::-1])
    both: Any = ("axes fraction", "axes fraction")
    arrow = {"arrowstyle": "-", "lw": 0.5, "color": "0.6"}
    style = {"textcoords": both, "va": "center", "fontsize": 6, "arrowprops": arrow, "annotation_clip": False}
    for place, i in zip(heights, order, strict=True):
        axes.annotate(labels[i], (x[i], y[i]), xytext=(1.03, place), **style)


def _words(layer: str) -> str:
    """What a legend calls a layer, or the setting of a baseline."""
    return layer_label(layer) if " " in layer else f"{'vision' if layer.startswith('vis') else 'text'} {layer_label(layer)}"


def _title(words: str, count: float, panels: int) -> str:
    """Words and a count as the title of one of several panels, on lines that do not reach into the next one."""
    return textwrap.fill(f"{words}, % (n\u00a0=\u00a0{count:g})", 84 // (panels + 1))


def _curves(
    rows: pd.DataFrame, winner: Mapping[str, Any], tasks: Mapping[str, str]
) -> list[tuple[int, pd.DataFrame, dict[str, Any]]]:
    """(place, candidates by step, style) of each layer or setting; the winner has place 0 and the runner-up 1; all others,
    which come first, are grey."""
    of = {layer: part.sort_values("step", kind="stable") for layer, part in rows.groupby("layer", sort=False)}
    order = searches.best_layers(rows, winner, list(tasks))
    styles: list[dict[str, Any]] = [
        {"color": f"C{i}" if i < 2 else "0.75", "zorder": 3 if i < 2 else 2} for i in range(len(order))
    ]
    return [(i, of[order[i]], styles[i]) for i in reversed(range(len(order)))]


def _explain(panel: Axes, curves: Sequence[tuple[int, pd.DataFrame, Any]], trace_count: int, line: bool) -> None:
    """Entries of the legend for what `_curves` gives."""
    for i, part, style in reversed(curves[-2:]):
        label = f"{('winner', 'runner-up')[i]}: {_words(str(part['layer'].iloc[0]))}"
        panel.plot([], [], ls=STYLES[i] if line else "", marker=marker(i), ms=3, color=style["color"], label=label)
    if len(curves) > 2:
        kind = "setting" if " " in str(curves[0][1]["layer"].iloc[0]) else "layer"
        panel.plot(
            [],
            [],
            ls="-" if line else "",
            marker="o",
            ms=3,
            color="0.75",
            label=f"{len(curves) - 2} other {kind}{'s' * (len(curves) > 3)}",
        )
    if trace_count:
        label = f"estimated on {trace_count} pictures"
        panel.plot([], [], "o", color="0.4", mfc="none", ms=3, ls="", label=label)


def steps(
    rows: pd.DataFrame,
    start: Mapping[str, Any] | pd.Series,
    winner: Mapping[str, Any],
    tasks: Mapping[str, str],
    counts: Mapping[str, float],
    title: str,
    stem: Path,
    *,
    forgotten: float = MAX_FORGET,
) -> None:
    """Forget and retained accuracy against the step, a curve for each searched layer; winner and runner-up are in colour.

    A step that was not worth evaluating on all retained pictures is hollow: the unedited accuracy plus the change on
    counts["trace"] pictures of each retained task. Retained accuracies are shown near the unedited model's.

    Args:
        rows, start, winner: candidates as in `-steps.csv`, the unedited model and the chosen candidate.
        tasks: {retained task: words}; each has a panel.
        counts: {"forget", "trace" or task: pictures}.
        forgotten: forget accuracy up to which a name counts as forgotten.
    """
    curves, columns = _curves(rows, winner, tasks), {"forget": "the forgotten name", **tasks}
    figure, panels = grid(1, len(columns), 2.5, sharex=True)
    for panel, (task, what) in zip(panels[0], columns.items(), strict=True):
        before = 100 * start[f"{task}_acc1"]
        for place, part, style in curves:
            step, (exact, trace) = part["step"].to_numpy(), searches.curve(part, start, task)
            some = np.where(np.isnan(exact), trace, exact)
            known, line = ~np.isnan(some), STYLES[place] if place < 2 else "-"
            panel.plot(step[known], 100 * some[known], line, lw=1.1 if place < 2 else 0.6, **style)
            panel.plot(step, 100 * trace, marker(place % 2), ms=3, mfc="none", mew=0.7, **style)
            panel.plot(step, 100 * exact, marker(place % 2), ms=3, **style)
        panel.axhline(before, color="0.4", lw=0.8, ls=(0, (1, 1)))
        panel.plot(winner["step"], 100 * winner[f"{task}_acc1"], "*", color="k", ms=8, zorder=5)
        if task == "forget":
            panel.axhspan(0, 100 * forgotten, **FORGOTTEN)
        else:
            panel.set_ylim(before - 8, before + 2)
        step_axis(panel)
        panel.set_title(_title(what, counts[task], len(columns)))
    legend = panels[0, 0]
    _explain(legend, curves, int(counts["trace"]), line=True)
    legend.plot([], [], "*", color="k", ms=8, ls="", label="chosen step")
    legend.plot([], [], color="0.4", ls=(0, (1, 1)), label="unedited model")
    legend.plot([], [], **FORGOTTEN | {"lw": 5}, label=f"forgotten: up to {100 * forgotten:g}%")
    figure.suptitle(f"{title}: accuracy against the step")
    legend_below(figure, legend, 3)
    save(figure, stem)


def reached(
    rows: pd.DataFrame,
    start: Mapping[str, Any] | pd.Series,
    winner: Mapping[str, Any],
    tasks: Mapping[str, str],
    counts: Mapping[str, float],
    title: str,
    stem: Path,
    *,
    forgotten: float = MAX_FORGET,
) -> None:
    """Retained against forget accuracy of every candidate of one search, a panel for each retained task; arguments and
    styles as of `steps`."""
    curves = _curves(rows, winner, tasks)
    figure, panels = grid(1, len(tasks), 2.9)
    for panel, (task, words) in zip(panels[0], tasks.items(), strict=True):
        for place, part, style in curves:
            x, (exact, trace) = 100 * part["forget_acc1"].to_numpy(float), searches.curve(part, start, task)
            panel.plot(x, 100 * trace, marker(place % 2), ms=3.5, mfc="none", mew=0.7, **style)
            panel.plot(x, 100 * exact, marker(place % 2), ms=3.5, **style)
        panel.plot(100 * start["forget_acc1"], 100 * start[f"{task}_acc1"], "D", color="k", ms=5)
        panel.plot(100 * winner["forget_acc1"], 100 * winner[f"{task}_acc1"], "*", color="k", ms=9, zorder=5)
        panel.axvspan(-3, 100 * forgotten, **FORGOTTEN)
        panel.set_xlim(-3, 103)
        panel.set_xlabel(f"pictures of the forgotten name\nthat are recognised, % (n = {counts['forget']:g})")
        panel.set_title(_title(words, counts[task], len(tasks)))
    legend = panels[0, 0]
    _explain(legend, curves, int(counts["trace"]), line=False)
    legend.plot([], [], "*", color="k", ms=8, ls="", label="chosen candidate")
    legend.plot([], [], "D", color="k", ms=5, ls="", label="unedited model")
    legend.plot([], [], **FORGOTTEN | {"lw": 5}, label=f"forgotten: up to {100 * forgotten:g}%")
    figure.suptitle(f"{title}: every candidate")
    legend_below(figure, legend, 3)
    save(figure, stem)
