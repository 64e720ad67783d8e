"""Plots of several searches: methods beside each other, the study, relearning, and cosines."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from slug.reports import naming
from slug.reports.plots.layout import STYLES, grid, legend_below, marker, save
from slug.schema import ORIGINAL, is_slug
from slug.settings import MAX_FORGET

Interval = Callable[[pd.Series], tuple[float, float, float]]  # gives (mean, low, high)


def tradeoff(
    points: dict[str, np.ndarray],
    chosen: dict[str, Sequence[float]],
    title: str,
    stem: Path,
    *,
    forgotten: float = MAX_FORGET,
    bars: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Forget against retained accuracy of every candidate of every method, with SLUG's own Pareto front joined up.

    The second panel shows the candidates that forget, up to an accuracy of `forgotten`. The chosen one need not be the
    highest: it was chosen on all pictures and must forget by a margin; the plot shows the few pictures that every candidate
    was evaluated on.

    Args:
        points: (N, 2) forget and retained accuracy of each method, fractions; "original" is one point.
        chosen: (forget, retained) of the chosen candidates.
        bars: (low, high) of the 95% interval of a chosen candidate's retained accuracy.
    """
    figure, ((axes, near),) = grid(1, 2, 2.8)
    methods, jitter = [m for m in points if m != ORIGINAL], np.random.default_rng(0)
    for i, (method, values) in enumerate(points.items()):
        x, y = 100 * np.asarray(values).reshape(-1, 2).T
        style: dict[str, Any] = {"marker": marker(i), "edgecolors": f"C{i - 1}"}
        if method == ORIGINAL:
            axes.plot(x, y, "o", color="k", mfc="none", ms=4)
            for panel in (axes, near):
                panel.axhline(y[0], color="k", lw=0.8, ls=":")
            near.set_ylim(y[0] - 20, y[0] + 3)
            continue
        label = f"{naming.label(method)} ({len(x)})"
        spread = jitter.uniform(-1.2, 1.2, len(x))  # or equal accuracies hide each other
        axes.scatter(x + spread, y, s=9, facecolors="none", lw=0.7, label=label, **style)
        place, forgets = methods.index(method), y[x <= 100 * forgotten]
        near.scatter(place + jitter.uniform(-0.2, 0.2, len(forgets)), forgets, s=9, facecolors="none", lw=0.7, **style)
        if lower := int((forgets < near.get_ylim()[0]).sum()):
            near.annotate(f"\u2193 {lower}", (place, 0.01), xycoords=("data", "axes fraction"), ha="center", fontsize=6.5)
        if method in chosen:
            forget, retained = 100 * np.asarray(chosen[method])
            for panel, where in ((axes, forget), (near, place)):
                panel.scatter(where, retained, s=32, zorder=4, facecolors=style["edgecolors"], **style)
            if bars and method in bars:
                near.vlines(place, *(100 * np.asarray(bars[method])), color="k", lw=1.2, zorder=5)
        if method == "slug":
            order = np.lexsort((-y, x))
            front = order[y[order] >= np.maximum.accumulate(y[order])]
            axes.step(x[front], y[front], where="post", color="C0", lw=1.2)
    axes.set_xlabel("pictures still given the\nforgotten name (FA@1), %")
    axes.set_ylabel("retained accuracy, %\n(mean of both tasks)")
    near.set_xticks(range(len(methods)), [naming.label(m) for m in methods])
    near.set_xlim(-0.6, len(methods) - 0.4)
    near.set_xlabel(f"candidates that forget (FA@1 at most {forgotten:.0%})\n\u2193 number of those below the axis")
    _explain_tradeoff(axes, bool(bars))
    figure.suptitle(title)
    legend_below(figure, axes, 5)
    save(figure, stem)


def _explain_tradeoff(axes: Axes, bars: bool) -> None:
    """Entries of the legend for what stands in the panels of all methods."""
    axes.plot([], [], "s", color="0.4", ms=6, label="filled: chosen")
    if bars:
        axes.plot([], [], color="k", lw=1.2, label="its 95% interval")
    axes.plot([], [], color="C0", lw=1.2, label="SLUG's own Pareto front")
    axes.plot([], [], "o:", color="k", mfc="none", lw=0.8, ms=4, label="unedited model")


def costs(rows: dict[str, tuple[float, float, float, float]], title: str, stem: Path) -> None:
    """What each method costs, on log axes, {method: (seconds of all candidates, of the chosen one, peak MB, kB on disk)}."""
    figure, panels = grid(2, 2, 0.9 + 0.4 * len(rows), sharey=True)
    for i, what in enumerate(("seconds, all candidates", "seconds, the chosen one", "peak memory, MB", "size on disk, kB")):
        panel, values = panels.flat[i], [row[i] for row in rows.values()]
        for y, (method, value) in enumerate(zip(rows, values, strict=True)):
            panel.plot(value, y, "o", ms=4, color="C0" if is_slug(method) else "0.5")
            panel.text(value, y, f"   {value:,.0f}" if value >= 10 else f"   {value:.2g}", va="center", fontsize=6.5)
        panel.set_xscale("log")
        panel.set_xlim(min(values) / 2, max(values) * 10)  # room for the numbers
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_xlabel(what)
    for panel in panels[:, 0]:
        panel.set_yticks(range(len(rows)), [naming.in_words(method) for method in rows])
    figure.suptitle(title)
    save(figure, stem)


def similarity(before: np.ndarray, after: np.ndarray, names: Sequence[str], title: str, stem: Path) -> None:
    """Cosines (K, K) of mean picture features (rows) and name prompts (columns): before the edit, after it, the change."""
    figure, panels = grid(2, 2, 4.9)
    numbers = [str(i + 1) for i in range(len(names))]
    named = [f"{textwrap.shorten(name, 26, placeholder='...')}  {i}" for name, i in zip(names, numbers, strict=True)]
    shown, where = {"before": before, "after": after, "change": after - before}, [panels[0, 0], panels[0, 1], panels[1, 0]]
    for panel, (when, values) in zip(where, shown.items(), strict=True):
        image = panel.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        panel.grid(False)
        panel.set_xticks(range(len(names)), numbers, fontsize=6)
        panel.set_yticks(range(len(names)), named if panel is not panels[0, 1] else numbers, fontsize=6)
        panel.set_title(f"{when}{', after less before' * (when == 'change')}")
        size = min(6, 48 / len(names))
        for (i, j), value in np.ndenumerate(values):
            text = f"{value:+.2f}".replace("0.", ".").removeprefix("" if when == "change" else "+")
            panel.text(j, i, text, ha="center", va="center", fontsize=size, color="w" if abs(value) > 0.6 else "k")
    rest = panels[1, 1]
    rest.set_axis_off()
    said = "rows: mean feature of a name's pictures\n\ncolumns: the prompts of the same names"
    rest.text(0, 0.95, said, va="top", fontsize=7, transform=rest.transAxes)
    figure.colorbar(image, cax=rest.inset_axes((0, 0.55, 0.9, 0.06)), orientation="horizontal", label="cosine")
    figure.suptitle(title)
    save(figure, stem)


def variants(
    differences: dict[str, dict[str, pd.Series]],
    interval: Interval,
    margins: Mapping[str, float],
    groups: Mapping[str, Mapping[str, str]],
    title: str,
    stem: Path,
) -> None:
    """Differences from the standard by name, {figure: {variant: points}}, with mean and interval; a panel each figure, in
    which differences within `margins`, {figure: points}, are shaded.

    Args:
        groups: {question: {variant: words}}, in the order in which they are drawn.
    """
    run = {variant for part in differences.values() for variant in part}
    places: dict[str, int] = {}
    labels: list[str] = []
    for question, words in groups.items():
        if mine := [v for v in words if v in run]:
            labels.append(question)
            for variant in mine:
                places[variant] = len(labels)
                labels.append(words[variant])
    figure, panels = grid(1, len(differences), 1.1 + 0.15 * len(labels), sharey=True)
    for panel, (what, part) in zip(panels[0], differences.items(), strict=True):
        for variant, points in part.items():
            y = places[variant]
            panel.plot(points, [y] * len(points), "o", color="0.6", mfc="none", ms=2.5, mew=0.5)
            mean, low, high = interval(points)
            panel.plot([low, high], [y, y], "-", color="C0", lw=1.6)
            panel.plot(mean, y, "D", color="C0", ms=3)
        panel.axvline(0, color="0.3", lw=0.8)
        panel.axvspan(-margins.get(what, 0), margins.get(what, 0), color="C2", alpha=0.15, lw=0)
        panel.set_xscale("symlog", linthresh=1)
        left, right = panel.get_xlim()
        panel.set_xlim(min(left, -1.5), max(right, 1.5))
        panel.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.set_xlabel(f"{what}: points\nbetter than the standard")
    legend = panels[0][0]
    legend.set_yticks(range(len(labels)), labels)
    legend.set_ylim(len(labels) - 0.4, -0.6)
    for y, tick in enumerate(legend.get_yticklabels()):
        tick.set_fontweight("normal" if y in places.values() else "bold")
    legend.plot([], [], "o", color="0.6", mfc="none", ms=2.5, mew=0.5, label="each name")
    legend.plot([], [], "D-", color="C0", ms=3, lw=1.6, label="mean, 95% interval")
    legend.fill_between([], [], color="C2", alpha=0.15, lw=0, label="margin")
    legend_below(figure, legend, 3)
    figure.suptitle(title)
    save(figure, stem)


def relearning(curves: dict[str, dict[str, Any]], original: tuple[float, float], title: str, stem: Path) -> None:
    """Forget (top) and retained accuracy (bottom) against fine-tuning steps, a column for each number of pictures.

    Args:
        curves: {column: {method: (steps, forget accuracy, retained accuracy)}}, (N,) fractions each.
    """
    figure, panels = grid(2, len(curves), 3.8, sharex=True, sharey="row")
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
