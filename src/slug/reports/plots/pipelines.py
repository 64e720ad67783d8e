"""Curves of pipelines and assistants."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import ticker

from slug.reports import naming
from slug.reports.plots.layout import STYLES, grid, legend_below, marker, save

NAMED = {
    "forget_acc": "given: drawings seen in training",
    "forget_unseen_acc": "given: drawings never seen",
    "forget_all_acc": "given: all drawings",
}
LOST = {
    "identities_change": "naming other identities",
    "objects_change": "naming objects",
    "utility_change": "other questions",
}


def assistant(frame: pd.DataFrame, title: str, stem: Path) -> None:
    """What is still named, and what is lost, along multiples of the chosen steps: means over names (thick) and each name
    (thin). The step that was chosen is 1; rows as in curve.csv."""
    figure, (axes,) = grid(1, 2, 2.8)
    for panel, columns in zip(axes, (NAMED, LOST), strict=True):
        for i, (column, said) in enumerate((c, said) for c, said in columns.items() if c in frame):
            color = f"C{i + len(NAMED) * (columns is LOST)}"
            for _, part in frame.sort_values("factor").groupby("name", sort=False):
                panel.plot(part["factor"], 100 * part[column], color=color, lw=0.5, alpha=0.45)
            mean = 100 * frame.groupby("factor")[column].mean()
            panel.plot(mean.index, mean, color=color, marker=marker(i), ms=3.5, mfc="none", lw=1.6, label=said)
        panel.axvline(1, color="0.5", lw=0.8, ls=(0, (1, 1)))
        panel.set_xlabel("multiple of the chosen step")
    axes[0].set_ylim(-3, 103)
    axes[0].set_ylabel("forgotten name is given, %")
    axes[1].set_ylabel("retained accuracy:\nchange in points")
    axes[0].plot([], [], color="0.5", lw=0.8, ls=(0, (1, 1)), label="the chosen step")
    handles = [panel.get_legend_handles_labels() for panel in axes]
    figure.legend(*(a + b for a, b in zip(*handles, strict=True)), loc="outside lower center", ncol=3, frameon=False)
    figure.suptitle(title)
    save(figure, stem)


Panel = tuple[Sequence[float], dict[str, Sequence[float]], dict[str, tuple[float, float]]]


def canvas(panels: dict[str, Panel], floor: float, title: str, stem: Path) -> None:
    """The best UA against the share of IRA and of CRA that must be retained, a line for each method.

    Args:
        panels: {title: (shares, {method: UA at each share}, {label: (share, UA)} of single marks)}, fractions.
        floor: share below which the search evaluates no candidate in full; shaded.
    """
    figure, axes = grid(1, len(panels), 3.5, sharey=True)
    for panel, (what, (shares, curves, marks)) in zip(axes[0], panels.items(), strict=True):
        x = 100 * np.asarray(shares)
        for i, (method, values) in enumerate(curves.items()):
            style = {"marker": marker(i), "ms": 3.5, "markevery": max(1, len(x) // 10), "mfc": "none"}
            panel.plot(
                x, 100 * np.asarray(values), STYLES[i % 4], color=f"C{i}", lw=1.2, label=naming.in_words(method), **style
            )
        for (label, (share, ua)), mark in zip(marks.items(), ("*", "P"), strict=False):
            panel.plot(100 * share, 100 * ua, mark, color="k", ms=8, label=label, zorder=5)
            panel.axvline(100 * share, color="k", lw=0.8, ls=":")
        panel.axvspan(x[0], 100 * floor, color="0.92", zorder=0, label="below the search's floor")
        panel.set_xlim(x[0], x[-1])
        panel.set_ylim(-3, 103)
        panel.xaxis.set_major_locator(ticker.MultipleLocator(5))
        panel.set_xlabel("share of the original's IRA and CRA\nthat each retain at least, %")
        panel.set_title(what)
    axes[0][0].set_ylabel("unlearning accuracy (UA) of the\nbest candidate, mean over concepts, %")
    legend_below(figure, axes[0][0], 2)
    figure.suptitle(title)
    save(figure, stem)
