"""How long things take."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from slug.reports.plots.layout import horizontal_bars, save


def bars(values: dict[str, float], what: str, title: str, stem: Path) -> None:
    """Horizontal bars, {label: number} from top to bottom; `what` names the numbers and their unit."""
    figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.42 * len(values)), layout="constrained")
    horizontal_bars(axes, values, values.values(), ["C0", *["0.6"] * (len(values) - 1)], 100)
    axes.set_xlim(right=1.08 * axes.get_xlim()[1])
    axes.set_xlabel(what)
    axes.invert_yaxis()
    axes.set_title(title)
    save(figure, stem)


def growth(panels: dict[str, list[tuple[float, float, float]]], title: str, stem: Path) -> None:
    """Seconds and peak memory against sizes, a panel for each {what: [(size, seconds, MB)]}."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), layout="constrained")
    for i, (panel, (what, points)) in enumerate(zip(axes, panels.items(), strict=True)):
        size, seconds, memory = np.array(points, float).T
        panel.plot(size, seconds, "o-", color="C0", label="seconds (left)")
        other = panel.twinx()
        other.plot(size, memory, "s--", color="0.45", label="peak memory, MB (right)")
        for side in (panel, other):
            side.set_yscale("log")
            side.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            side.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
            side.yaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_xscale("log")
        panel.set_xticks(size, [f"{int(s):,}" for s in size])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.set_xlabel(what)
        other.grid(visible=False)
        panel.set_ylabel("seconds" if i == 0 else "")
        other.set_ylabel("MB" if i == len(panels) - 1 else "")
        handles = [*panel.get_lines(), *other.get_lines()]
    figure.legend(handles, [h.get_label() for h in handles], loc="outside lower center", ncol=2, frameon=False)
    figure.suptitle(title)
    save(figure, stem)
