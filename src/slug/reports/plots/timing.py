"""How long things take."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from slug.reports.plots.layout import WIDTH, horizontal_bars, marker, save


def bars(values: dict[str, float], what: str, title: str, stem: Path) -> None:
    """Horizontal bars, {label: number} from top to bottom; `what` names the numbers and their unit."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.3 * len(values)), layout="constrained")
    horizontal_bars(axes, values, values.values(), ["C0", *["0.6"] * (len(values) - 1)], 100)
    axes.set_xlim(right=1.08 * axes.get_xlim()[1])
    axes.set_xlabel(what)
    axes.invert_yaxis()
    axes.set_title(title)
    save(figure, stem)


def growth(panels: dict[str, list[tuple[float, float, float]]], title: str, stem: Path) -> None:
    """Seconds (top) and peak memory (bottom) against sizes, a column for each {what: [(size, seconds, MB)]}."""
    shared: dict[str, Any] = {"sharex": "col", "sharey": "row", "layout": "constrained"}
    figure, axes = plt.subplots(2, len(panels), figsize=(WIDTH, 3.2), **shared)
    for column, (what, points) in zip(axes.T, panels.items(), strict=True):
        size, *values = np.array(points, float).T
        for i, (panel, value) in enumerate(zip(column, values, strict=True)):
            panel.plot(size, value, f"{marker(i)}-", color=f"C{i}", mfc="none", ms=4)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:,.0f}"))
            panel.yaxis.set_minor_formatter(ticker.NullFormatter())
            panel.set_xscale("log")
            panel.set_xticks(size, [f"{int(s):,}" for s in size])
            panel.xaxis.set_minor_locator(ticker.NullLocator())
        column[1].set_xlabel(what)
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("peak memory, MB")
    figure.suptitle(title)
    save(figure, stem)
