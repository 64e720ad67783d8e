"""Plots of CLIPs: Pareto fronts, step curves, comparison, study and relearning."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from slug.reports.plots.layout import STYLES, horizontal_bars, legend_below, marker, save, show_picture, tick
from slug.schema import ORIGINAL, is_slug, layer_label

Names = Sequence[str]
Interval = Callable[[pd.Series], tuple[float, float, float]]  # gives (mean, low, high)


def pareto(rows: Sequence[Any], front: Sequence[Any], chosen: str | None, title: str, stem: Path) -> None:
    """Importance against |alignment| of one encoder's layers, with the Pareto front joined up and its layers named.

    Rows have `name`, `importance` and `alignment`; `chosen` is the winner layer, or None if it is in the other encoder.
    """
    figure, axes = plt.subplots(figsize=(6.2, 4.4))
    every = [abs(r.alignment) for r in rows], [r.importance for r in rows]
    axes.scatter(*every, s=18, facecolors="none", edgecolors="0.55", label=f"all layers ({len(rows)})")
    line = sorted(front, key=lambda r: abs(r.alignment))
    x, y = [abs(r.alignment) for r in line], [r.importance for r in line]
    axes.plot(x, y, "-o", color="C0", ms=5, lw=1.2, label=f"Pareto front ({len(front)})")
    for r in line:
        if r.name == chosen:
            axes.plot(abs(r.alignment), r.importance, "*", color="C3", ms=15, label="winner", zorder=5)
    axes.set_yscale("log")
    axes.set_xlabel("|cosine of forget and retain gradient|  (alignment)")
    axes.set_ylabel("forget gradient norm / weight norm  (importance)")
    axes.set_title(title)
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1.6)
    _label_points(axes, x, y, [layer_label(r.name) for r in line])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, frameon=False)
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
    style = {"textcoords": both, "va": "center", "fontsize": 7.5, "arrowprops": arrow, "annotation_clip": False}
    for place, i in zip(heights, order, strict=True):
        axes.annotate(labels[i], (x[i], y[i]), xytext=(1.03, place), **style)


def steps(
    rows: pd.DataFrame, winner: Mapping[str, Any], counts: dict[str, int], title: str, stem: Path, trace_count: int = 0
) -> None:
    """Forget and retained accuracy against the step, a curve for each searched layer.

    A step that was not worth evaluating on all retained pictures is hollow: the unedited accuracy plus the change on
    `trace_count` pictures of each retained task.

    Args:
        rows: candidates as in `-steps.csv`, the unedited model first.
        counts: pictures of "forget", "identities" and "objects".
    """
    baseline: Any = rows.iloc[0]
    curves: dict[Any, pd.DataFrame] = dict(list(rows[1:].groupby("layer", sort=False)))
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), sharex=True)
    tasks = {"forget": "the forgotten name", "identities": "other identities", "objects": "other objects"}
    for panel, (task, what) in zip(panels, tasks.items(), strict=True):
        column = f"{task}_acc1"
        for i, (layer, part) in enumerate(curves.items()):
            part = part.sort_values("step", kind="stable")
            step, exact = part["step"].to_numpy(), part[column].to_numpy()
            trace = np.full(len(part), np.nan)  # the forgotten name needs none
            if f"{task}_trace" in part:
                change = part[f"{task}_trace"].to_numpy() - baseline[f"{task}_trace"]
                trace = np.where(np.isnan(exact), np.maximum(change + baseline[column], 0), np.nan)
            some, color = np.where(np.isnan(exact), trace, exact), f"C{i}"
            known, label = ~np.isnan(some), f"{'vision' if layer.startswith('vis') else 'text'} {layer_label(layer)}"
            panel.plot(step[known], 100 * some[known], STYLES[i % 4], color=color, lw=1)
            panel.plot(step, 100 * trace, marker(i), ms=4, mfc="none", color=color)
            panel.plot(step, 100 * exact, marker(i), ms=4, color=color)
            panel.plot([], [], STYLES[i % 4], marker=marker(i), ms=4, lw=1, color=color, label=label)
        panel.axhline(100 * baseline[column], color="0.4", lw=1, ls=(0, (1, 1)))
        panel.plot(winner["step"], 100 * winner[column], "*", color="k", ms=13, zorder=5)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_xlabel("step size")
        panel.set_ylabel(f"zero-shot top-1 of {what}, % (n = {counts[task]})")
    hollow = f"; hollow: change on {trace_count} of them" if trace_count else ""
    figure.suptitle(f"{title}: validation split; dotted: unedited model; star: winner{hollow}", y=0.99)
    handles, labels = panels[0].get_legend_handles_labels()
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.02), "frameon": False, "fontsize": 8}
    figure.legend(handles, labels, ncol=min(5, len(labels)), **below)
    figure.tight_layout()
    save(figure, stem)


def tradeoff(
    points: dict[str, np.ndarray], chosen: dict[str, Sequence[float]], title: str, stem: Path, *, forgotten: float = 0.02
) -> None:
    """Forget against retained accuracy of every candidate of every method, with SLUG's own Pareto front joined up.

    The second panel shows the candidates that forget, up to an accuracy of `forgotten`. The chosen one need not be the
    highest: it was chosen on all pictures and must forget by a margin; the plot shows the few pictures that every candidate
    was evaluated on.

    Args:
        points: (N, 2) forget and retained accuracy of each method, fractions; "original" is one point.
        chosen: (forget, retained) of the chosen candidates.
    """
    figure, (axes, near) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    methods = [m for m in points if m != ORIGINAL]
    for i, (method, values) in enumerate(points.items()):
        x, y = 100 * np.asarray(values).reshape(-1, 2).T
        style: dict[str, Any] = {"marker": marker(i), "edgecolors": f"C{i}" if method != ORIGINAL else "k"}
        count = "" if method == ORIGINAL else f" ({len(x)})"
        axes.scatter(x, y, s=22, facecolors="none", lw=0.9, label=method + count, **style)
        if method == ORIGINAL:
            near.axhline(y[0], color="k", lw=0.8, ls=":")
            near.set_ylim(y[0] - 20, y[0] + 3)
            continue
        place, forgets = methods.index(method), y[x <= 100 * forgotten]
        near.scatter([place] * len(forgets), forgets, s=22, facecolors="none", lw=0.9, **style)
        if method in chosen:
            forget, retained = 100 * np.asarray(chosen[method])
            for panel, where in ((axes, forget), (near, place)):
                panel.scatter(where, retained, s=70, zorder=4, facecolors=style["edgecolors"], **style)
        if method == "slug":
            order = np.lexsort((-y, x))
            front = order[y[order] >= np.maximum.accumulate(y[order])]
            axes.step(x[front], y[front], where="post", color=style["edgecolors"], lw=1.2)
    axes.set_xlabel("zero-shot top-1 of the forgotten name, %")
    axes.set_ylabel("retained zero-shot top-1, %\n(mean of other identities and objects)")
    near.set_xticks(range(len(methods)), methods)
    near.set_xlim(-0.6, len(methods) - 0.4)
    near.set_ylabel("the same, %; dotted: the unedited model")
    near.set_xlabel(f"candidates that forget (top-1 of the name at most {forgotten:.0%})")
    figure.suptitle(title)
    legend_below(figure, axes, 7)
    save(figure, stem)


def costs(rows: dict[str, tuple[float, float, float]], title: str, stem: Path) -> None:
    """Bars of what each method costs, {method: (seconds, peak MB, kB on disk)}."""
    figure, panels = plt.subplots(1, 3, figsize=(9.5, 0.6 + 0.4 * len(rows)), sharey=True, layout="constrained")
    for i, what in enumerate(("seconds", "peak memory, MB", "size on disk, kB")):
        panel, values = panels[i], [row[i] for row in rows.values()]
        horizontal_bars(panel, rows, values, ["C3" if is_slug(m) else "0.6" for m in rows], 10)
        panel.set_xlim(right=panel.get_xlim()[1] * 1.2)
        panel.set_xlabel(what)
    panels[0].invert_yaxis()
    figure.suptitle(title)
    save(figure, stem)


def similarity(before: np.ndarray, after: np.ndarray, names: Sequence[str], title: str, stem: Path) -> None:
    """Cosines (K, K) of mean picture features (rows) and name prompts (columns) before and after the edit."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True, layout="constrained")
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    for panel, values, when in zip(panels, (before, after), ("before", "after"), strict=True):
        image = panel.imshow(values, cmap="cividis", vmin=low, vmax=high)
        panel.grid(False)
        panel.set_xticks(range(len(names)), names, rotation=40, ha="right")
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel("name prompt")
        panel.set_title(when)
        for (i, j), value in np.ndenumerate(values):
            color = "w" if value < (low + high) / 2 else "k"
            panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
    panels[0].set_ylabel("mean of the pictures of")
    figure.colorbar(image, ax=panels, shrink=0.8, label="cosine")
    figure.suptitle(title)
    save(figure, stem)


def pictures(images: Any, truth: Names, before: Names, after: Names, title: str, stem: Path) -> None:
    """Pictures, a (2 K, 3, S, S) uint8 tensor, of the forgotten name (top) and of others with the model's guesses."""
    columns = len(truth) // 2
    figure, panels = plt.subplots(2, columns, figsize=(1.45 * columns, 4.1), layout="constrained")
    for panel, image, name, old, new in zip(panels.flat, images, truth, before, after, strict=True):
        show_picture(panel, image.permute(1, 2, 0).numpy())
        # No-break spaces keep a mark with its name.
        said = (f"{old}\u00a0{tick(old == name)}", f"\u2192 {new}\u00a0{tick(new == name)}")
        panel.set_xlabel("\n".join(textwrap.fill(text, 19) for text in said), fontsize=7.5)
    panels[0, 0].set_ylabel("forgotten")
    panels[1, 0].set_ylabel("others")
    figure.suptitle(title)
    save(figure, stem)


def variants(differences: dict[str, dict[str, pd.Series]], interval: Interval, title: str, stem: Path) -> None:
    """Differences from the standard by name, {figure: {variant: points}}, with mean and interval; a panel each figure."""
    rows = list(dict.fromkeys(v for part in differences.values() for v in part))
    size = (9, 1.6 + 0.26 * len(rows))
    figure, panels = plt.subplots(1, len(differences), figsize=size, sharey=True, squeeze=False)
    for panel, (what, part) in zip(panels[0], differences.items(), strict=True):
        for variant, points in part.items():
            y = rows.index(variant)
            panel.plot(points, [y] * len(points), "o", color="0.6", mfc="none", ms=4)
            mean, low, high = interval(points)
            panel.plot([low, high], [y, y], "-", color="C0", lw=2)
            panel.plot(mean, y, "D", color="C0", ms=5)
        panel.axvline(0, color="0.3", lw=1)
        panel.set_xscale("symlog", linthresh=1)
        left, right = panel.get_xlim()
        panel.set_xlim(min(left, -1.5), max(right, 1.5))
        panel.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.set_xlabel(f"{what}: points better than the standard")
    panels[0][0].set_yticks(range(len(rows)), rows)
    panels[0][0].invert_yaxis()
    figure.suptitle(title)
    figure.tight_layout()
    save(figure, stem)


def relearning(curves: dict[str, dict[str, Any]], original: tuple[float, float], title: str, stem: Path) -> None:
    """Forget (top) and retained accuracy (bottom) against fine-tuning steps, a column for each number of pictures.

    Args:
        curves: {column: {method: (steps, forget accuracy, retained accuracy)}}, (N,) fractions each.
    """
    shared: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
    figure, panels = plt.subplots(2, len(curves), figsize=(1.2 + 3.1 * len(curves), 5.6), **shared)
    for column, (label, methods) in zip(panels.T, curves.items(), strict=True):
        for i, (method, (steps, *values)) in enumerate(methods.items()):
            place = np.arange(len(steps))  # by rank: 0, 1, 2, 5, 10, 20 are about even on a log scale, which has no 0
            for panel, value in zip(column, values, strict=True):
                style = {"marker": marker(i), "ms": 4, "lw": 1.2, "mfc": "none"}
                panel.plot(place, 100 * value, STYLES[i % 4], color=f"C{i}", label=method, **style)
        for panel, value in zip(column, original, strict=True):
            panel.axhline(100 * value, color="k", lw=0.9, ls=(0, (1, 1)), label="unedited model")
            panel.set_ylim(-3, 103)
        column[0].set_title(label, fontsize=9)
        column[1].set_xticks(place, [f"{s:g}" for s in steps])
        column[1].set_xlabel("fine-tuning steps")
    panels[0][0].set_ylabel("zero-shot top-1 of\nthe forgotten name, %")
    panels[1][0].set_ylabel("retained zero-shot top-1, %\n(mean of identities and objects)")
    legend_below(figure, panels[0][0], 7)
    figure.suptitle(title)
    save(figure, stem)
