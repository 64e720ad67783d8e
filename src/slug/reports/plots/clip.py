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

from slug.reports import naming, searches
from slug.reports.plots.layout import STYLES, WIDTH, legend_below, marker, save, show_picture, step_axis, tick
from slug.schema import ORIGINAL, is_slug, layer_label
from slug.settings import MAX_FORGET

Names = Sequence[str]
Interval = Callable[[pd.Series], tuple[float, float, float]]  # gives (mean, low, high)


def pareto(rows: Sequence[Any], front: Sequence[Any], chosen: str | None, title: str, stem: Path) -> None:
    """Importance against |alignment| of one encoder's layers, with the Pareto front joined up and its layers named.

    Rows have `name`, `importance` and `alignment`; `chosen` is the winner layer, or None if it is in the other encoder.
    """
    figure, axes = plt.subplots(figsize=(3.6, 3.1))
    every = [abs(r.alignment) for r in rows], [r.importance for r in rows]
    axes.scatter(*every, s=10, facecolors="none", edgecolors="0.55", lw=0.7, label=f"all layers ({len(rows)})")
    line = sorted(front, key=lambda r: abs(r.alignment))
    x, y = [abs(r.alignment) for r in line], [r.importance for r in line]
    axes.plot(x, y, "-o", color="C0", ms=3.5, lw=1, label=f"Pareto front ({len(front)})")
    for r in line:
        if r.name == chosen:
            axes.plot(
                abs(r.alignment), r.importance, "*", color="C1", ms=11, label=f"winner: {layer_label(r.name)}", zorder=5
            )
    axes.set_yscale("log")
    axes.set_xlabel("alignment: |cosine of forget and retain gradient|")
    axes.set_ylabel("importance: forget gradient / weight norm")
    axes.set_title(title)
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1.6)
    _label_points(axes, x, y, [layer_label(r.name) for r in line])
    axes.legend(loc="upper left", bbox_to_anchor=(-0.15, -0.17), ncol=3, frameon=False, columnspacing=1)
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
    style = {"textcoords": both, "va": "center", "fontsize": 6.5, "arrowprops": arrow, "annotation_clip": False}
    for place, i in zip(heights, order, strict=True):
        axes.annotate(labels[i], (x[i], y[i]), xytext=(1.03, place), **style)


def steps(
    rows: pd.DataFrame,
    winner: Mapping[str, Any],
    counts: dict[str, int],
    title: str,
    stem: Path,
    trace_count: int = 0,
    *,
    forgotten: float = MAX_FORGET,
) -> None:
    """Forget and retained accuracy against the step, a curve for each searched layer; winner and runner-up are in colour.

    A step that was not worth evaluating on all retained pictures is hollow: the unedited accuracy plus the change on
    `trace_count` pictures of each retained task. Retained accuracies are shown near the unedited model's.

    Args:
        rows: candidates as in `-steps.csv`, the unedited model first.
        counts: pictures of "forget", "identities" and "objects".
        forgotten: forget accuracy up to which a name counts as forgotten.
    """
    baseline: Any = rows.iloc[0]
    curves = {layer: p.sort_values("step", kind="stable") for layer, p in rows[1:].groupby("layer", sort=False)}
    order, band = searches.best_layers(rows[1:], winner), {"color": "C2", "alpha": 0.25}
    figure, panels = plt.subplots(1, 3, figsize=(1.25 * WIDTH, 2.3), sharex=True, layout="constrained")
    tasks = {"forget": "the forgotten name", "identities": "other identities", "objects": "other objects"}
    for panel, (task, what) in zip(panels, tasks.items(), strict=True):
        column = f"{task}_acc1"
        for place in reversed(range(len(order))):
            layer = order[place]
            step, (exact, trace) = curves[layer]["step"].to_numpy(), searches.curve(curves[layer], baseline, task)
            some = np.where(np.isnan(exact), trace, exact)
            known, in_front = ~np.isnan(some), place < 2
            style: dict[str, Any] = {"color": f"C{place}" if in_front else "0.75", "zorder": 3 if in_front else 2}
            line, width = (STYLES[place], 1.1) if in_front else ("-", 0.6)
            panel.plot(step[known], 100 * some[known], line, lw=width, **style)
            panel.plot(step, 100 * trace, marker(place % 2), ms=3, mfc="none", mew=0.7, **style)
            panel.plot(step, 100 * exact, marker(place % 2), ms=3, **style)
        panel.axhline(100 * baseline[column], color="0.4", lw=0.8, ls=(0, (1, 1)))
        panel.plot(winner["step"], 100 * winner[column], "*", color="k", ms=9, zorder=5)
        if task == "forget":
            panel.axhspan(0, 100 * forgotten, lw=0, **band)
        else:
            panel.set_ylim(100 * baseline[column] - 8, 100 * baseline[column] + 2)
        step_axis(panel)
        panel.set_title(f"{what}, %\n(n = {counts[task]})")
    kinds = [("winner", 0), ("runner-up", 1)][: len(order)]
    for kind, i in kinds:
        where = "vision" if order[i].startswith("vis") else "text"
        label = f"{kind}: {where} {layer_label(order[i])}"
        panels[0].plot([], [], STYLES[i], marker=marker(i), ms=3, color=f"C{i}", label=label)
    if len(order) > 2:
        panels[0].plot([], [], "-", color="0.75", label=f"{len(order) - 2} other layers")
    panels[0].plot([], [], "*", color="k", ms=9, ls="", label="chosen step")
    panels[0].plot([], [], color="0.4", ls=(0, (1, 1)), label="unedited model")
    panels[0].plot([], [], **band, lw=5, label=f"forgotten: up to {100 * forgotten:g}%")
    if trace_count:
        panels[0].plot([], [], "o", color="0.4", mfc="none", ms=3, ls="", label=f"estimated on {trace_count} pictures")
    figure.suptitle(f"{title}: zero-shot accuracy against the step")
    legend_below(figure, panels[0], 3)
    save(figure, stem)


def tradeoff(
    points: dict[str, np.ndarray],
    chosen: dict[str, Sequence[float]],
    title: str,
    stem: Path,
    *,
    forgotten: float = MAX_FORGET,
) -> None:
    """Forget against retained accuracy of every candidate of every method, with SLUG's own Pareto front joined up.

    The second panel shows the candidates that forget, up to an accuracy of `forgotten`. The chosen one need not be the
    highest: it was chosen on all pictures and must forget by a margin; the plot shows the few pictures that every candidate
    was evaluated on.

    Args:
        points: (N, 2) forget and retained accuracy of each method, fractions; "original" is one point.
        chosen: (forget, retained) of the chosen candidates.
    """
    figure, (axes, near) = plt.subplots(1, 2, figsize=(1.25 * WIDTH, 2.9), layout="constrained")
    methods, jitter = [m for m in points if m != ORIGINAL], np.random.default_rng(0)
    for i, (method, values) in enumerate(points.items()):
        x, y = 100 * np.asarray(values).reshape(-1, 2).T
        style: dict[str, Any] = {"marker": marker(i), "edgecolors": f"C{i - 1}" if method != ORIGINAL else "k"}
        said = "unedited model" if method == ORIGINAL else f"{naming.label(method)} ({len(x)})"
        spread = jitter.uniform(-1.2, 1.2, len(x)) * (method != ORIGINAL)  # or equal accuracies hide each other
        axes.scatter(x + spread, y, s=12, facecolors="none", lw=0.7, label=said, **style)
        if method == ORIGINAL:
            near.axhline(y[0], color="k", lw=0.8, ls=":")
            near.set_ylim(y[0] - 20, y[0] + 3)
            continue
        place, forgets = methods.index(method), y[x <= 100 * forgotten]
        near.scatter(place + jitter.uniform(-0.2, 0.2, len(forgets)), forgets, s=12, facecolors="none", lw=0.7, **style)
        if method in chosen:
            forget, retained = 100 * np.asarray(chosen[method])
            for panel, where in ((axes, forget), (near, place)):
                panel.scatter(where, retained, s=40, zorder=4, facecolors=style["edgecolors"], **style)
        if method == "slug":
            order = np.lexsort((-y, x))
            front = order[y[order] >= np.maximum.accumulate(y[order])]
            axes.step(x[front], y[front], where="post", color=style["edgecolors"], lw=1.2)
    axes.set_xlabel("FA@1: pictures still given the forgotten name, %")
    axes.set_ylabel("retained accuracy, %\n(mean of other identities and objects)")
    near.set_xticks(range(len(methods)), [naming.label(m) for m in methods])
    near.set_xlim(-0.6, len(methods) - 0.4)
    near.set_ylabel("the same (dotted: unedited model)")
    near.set_xlabel(f"candidates that forget (FA@1 at most {forgotten:.0%})")
    figure.suptitle(title)
    legend_below(figure, axes, 7)
    save(figure, stem)


def costs(rows: dict[str, tuple[float, float, float, float]], title: str, stem: Path) -> None:
    """What each method costs, on log axes, {method: (seconds of all candidates, of the chosen one, peak MB, kB on disk)}."""
    size = (1.5 * WIDTH, 0.8 + 0.2 * len(rows))
    figure, panels = plt.subplots(1, 4, figsize=size, sharey=True, layout="constrained")
    for i, what in enumerate(("all candidates, s", "the chosen one, s", "peak memory, MB", "size on disk, kB")):
        panel, values = panels[i], [row[i] for row in rows.values()]
        for y, (method, value) in enumerate(zip(rows, values, strict=True)):
            panel.plot(value, y, "o", ms=5, color="C1" if is_slug(method) else "0.5")
            panel.text(value, y, f"   {value:,.0f}" if value >= 10 else f"   {value:.2g}", va="center", fontsize=7)
        panel.set_xscale("log")
        panel.set_xlim(min(values) / 2, max(values) * 20)  # room for the numbers
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_xlabel(what)
    panels[0].set_yticks(range(len(rows)), [naming.label(method) for method in rows])
    panels[0].invert_yaxis()
    figure.suptitle(title)
    save(figure, stem)


def similarity(before: np.ndarray, after: np.ndarray, names: Sequence[str], title: str, stem: Path) -> None:
    """Cosines (K, K) of mean picture features (rows) and name prompts (columns): before the edit, after it, the change."""
    figure, panels = plt.subplots(1, 3, figsize=(1.6 * WIDTH, 3.1), sharey=True, layout="constrained")
    shown = {"before": before, "after": after, "change": after - before}
    for panel, (when, values) in zip(panels, shown.items(), strict=True):
        image = panel.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        panel.grid(False)
        panel.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=6)
        panel.set_yticks(range(len(names)), names, fontsize=6)
        panel.set_title(when)
        for (i, j), value in np.ndenumerate(values):
            text = f"{value:+.2f}" if when == "change" else f"{value:.2f}"
            panel.text(j, i, text, ha="center", va="center", fontsize=4.5, color="w" if abs(value) > 0.6 else "k")
    panels[0].set_ylabel("mean of the pictures of")
    panels[1].set_xlabel("name prompt")
    figure.colorbar(image, ax=panels, shrink=0.8, label="cosine")
    figure.suptitle(title)
    save(figure, stem)


def pictures(images: Any, truth: Names, before: Names, after: Names, title: str, stem: Path) -> None:
    """Pictures, a (2 K, 3, S, S) uint8 tensor, of the forgotten name (top) and of others with the model's guesses."""
    columns = len(truth) // 2
    figure, panels = plt.subplots(2, columns, figsize=(1.3 * WIDTH, 3.0), layout="constrained")
    for panel, image, name, old, new in zip(panels.flat, images, truth, before, after, strict=True):
        show_picture(panel, image.permute(1, 2, 0).numpy())
        # No-break spaces keep a mark with its name.
        said = (f"{old}\u00a0{tick(old == name)}", f"\u2192 {new}\u00a0{tick(new == name)}")
        panel.set_xlabel("\n".join(textwrap.fill(text, 16) for text in said), fontsize=6)
    panels[0, 0].set_ylabel("to be forgotten")
    panels[1, 0].set_ylabel("to be retained")
    figure.suptitle(title)
    save(figure, stem)


def variants(
    differences: dict[str, dict[str, pd.Series]], interval: Interval, margins: Mapping[str, float], title: str, stem: Path
) -> None:
    """Differences from the standard by name, {figure: {variant: points}}, with mean and interval; a panel each figure, in
    which differences within `margins`, {figure: points}, are shaded."""
    rows = list(dict.fromkeys(v for part in differences.values() for v in part))
    size = (1.25 * WIDTH, 1.1 + 0.17 * len(rows))
    figure, panels = plt.subplots(1, len(differences), figsize=size, sharey=True, squeeze=False)
    for panel, (what, part) in zip(panels[0], differences.items(), strict=True):
        for variant, points in part.items():
            y = rows.index(variant)
            panel.plot(points, [y] * len(points), "o", color="0.6", mfc="none", ms=3, mew=0.6)
            mean, low, high = interval(points)
            panel.plot([low, high], [y, y], "-", color="C0", lw=2)
            panel.plot(mean, y, "D", color="C0", ms=3.5)
        panel.axvline(0, color="0.3", lw=0.8)
        panel.axvspan(-margins.get(what, 0), margins.get(what, 0), color="C2", alpha=0.15, lw=0)
        panel.set_xscale("symlog", linthresh=1)
        left, right = panel.get_xlim()
        panel.set_xlim(min(left, -1.5), max(right, 1.5))
        panel.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.set_xlabel(f"{what}: points better\nthan the standard")
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
    figure, panels = plt.subplots(2, len(curves), figsize=(WIDTH, 3.8), **shared)
    for column, (label, methods) in zip(panels.T, curves.items(), strict=True):
        for i, (method, (steps, *values)) in enumerate(methods.items()):
            place = np.arange(len(steps))  # by rank: 0, 1, 2, 5, 10, 20 are about even on a log scale, which has no 0
            for panel, value in zip(column, values, strict=True):
                style = {"marker": marker(i), "ms": 3.5, "lw": 1.1, "mfc": "none"}
                panel.plot(place, 100 * value, STYLES[i % 4], color=f"C{i}", label=naming.in_words(method), **style)
        for panel, value in zip(column, original, strict=True):
            panel.axhline(100 * value, color="k", lw=0.9, ls=(0, (1, 1)), label="unedited model")
            panel.set_ylim(-3, 103)
        column[0].set_title(label)
        column[1].set_xticks(place, [f"{s:g}" for s in steps])
        column[1].set_xlabel("fine-tuning steps")
    panels[0][0].set_ylabel("pictures recognised as\nthe forgotten name, %")
    panels[1][0].set_ylabel("retained accuracy, %\n(mean of both tasks)")
    legend_below(figure, panels[0][0], 3)
    figure.suptitle(title)
    save(figure, stem)
