"""How long things take."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import ticker

from slug.reports.plots.layout import grid, horizontal_bars, legend_below, marker, save


def bars(values: dict[str, float], what: str, title: str, stem: Path) -> None:
    """Horizontal bars, {label: number} from top to bottom; `what` names the numbers and their unit."""
    figure, ((axes,),) = grid(1, 1, 0.8 + 0.2 * len(values))
    horizontal_bars(axes, values, values.values(), ["C0", *["0.6"] * (len(values) - 1)], 100)
    axes.set_xlim(right=1.08 * axes.get_xlim()[1])
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel(what)
    axes.invert_yaxis()
    axes.set_title(title)
    save(figure, stem)


def growth(
    panels: dict[str, list[tuple[float, float, float]]], title: str, stem: Path, reach: Mapping[str, float] | None = None
) -> None:
    """Seconds (top) and peak memory (bottom) against sizes, on log axes, a column for each {what: [(size, seconds, MB)]}.

    Args:
        reach: {what: size} up to which the line through the last two points is drawn on, dashed.
    """
    figure, axes = grid(2, len(panels), 3.4, sharex="col", sharey="row")
    for column, (what, points) in zip(axes.T, panels.items(), strict=True):
        size, *values = np.array(points, float).T
        end = (reach or {}).get(what, 0)
        for i, (panel, value) in enumerate(zip(column, values, strict=True)):
            panel.plot(size, value, f"{marker(i)}-", color=f"C{i}", mfc="none", ms=4, label="measured")
            if end > size[-1]:
                slope = np.diff(np.log(value[-2:])) / np.diff(np.log(size[-2:]))
                there = value[-1] * (end / size[-1]) ** slope[0]
                panel.plot([size[-1], end], [value[-1], there], "--", color=f"C{i}", lw=1)
                panel.plot(end, there, "x", color=f"C{i}", ms=4)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
            panel.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
            panel.yaxis.set_minor_locator(ticker.NullLocator())
            panel.set_xscale("log")
            panel.set_xticks([*size, end] if end > size[-1] else size)
            panel.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
            panel.xaxis.set_minor_locator(ticker.NullLocator())
        column[1].set_xlabel(what)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, MB")
    if reach:
        axes[0, 0].plot([], [], "--x", color="C0", lw=1, ms=4, label="extrapolated")
        legend_below(figure, axes[0, 0], 2)
    figure.suptitle(title)
    save(figure, stem)
