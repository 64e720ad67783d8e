"""Plots of pipelines and assistants."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from slug.reports import naming
from slug.reports.plots.layout import STYLES, WIDTH, legend_below, marker, save, show_picture, thick, tick

Texts = Sequence[str]
Flags = Sequence[Sequence[bool]]


def sheet(
    states: Sequence[Any],
    titles: Texts,
    right: Flags,
    own: int,
    title: str,
    stem: Path,
    seen_by: str = "both classifiers see",
) -> None:
    """Pictures of a pipeline, a row for each state (before, after), those of the forgotten concept on the left.

    Args:
        states: for each state a (K, 3, S, S) uint8 tensor.
        titles, right: what was asked for, and for each state whether the judge sees it.
        own: how many of the K show the forgotten concept.
        seen_by: who judges, and the verb.
    """
    rows, columns = len(states), len(titles)
    figure, panels = plt.subplots(rows, columns, figsize=(1.15 * columns, 1.2 * rows + 0.5), layout="constrained")
    for i, (images, flags) in enumerate(zip(states, right, strict=True)):
        for k, (panel, image, flag) in enumerate(zip(panels[i], images, flags, strict=True)):
            show_picture(panel, image.permute(1, 2, 0).numpy(), thick(k < own))
            panel.set_xlabel(tick(flag), fontsize=8)
            if i == 0:
                panel.set_title(titles[k], fontsize=7.5)
    for i, what in enumerate(("before", "after")[:rows]):
        panels[i, 0].set_ylabel(what)
    figure.suptitle(f"{title} (thick frame); {tick(True)}: {seen_by} what was asked for")
    save(figure, stem, dpi=150)  # the pictures have 64 pixels, and many sheets are committed


def answers(
    pictures: Sequence[Any], said: Sequence[tuple[str, str]], right: Flags, own: int, title: str, stem: Path
) -> None:
    """PIL pictures with an assistant's answers before and after, right or not; the first `own` show the name."""
    figure, panels = plt.subplots(1, len(pictures), figsize=(1.5 * len(pictures), 2.4), layout="constrained", squeeze=False)
    for k, (panel, picture) in enumerate(zip(panels[0], pictures, strict=True)):
        show_picture(panel, picture, thick(k < own))
        lines = [f"{text or '(nothing)'} {tick(flag)}" for text, flag in zip(said[k], right[k], strict=True)]
        panel.set_xlabel("\n".join(textwrap.fill(line, 16) for line in lines), fontsize=7.5)
    figure.suptitle(f"{title} (thick frame); the answer before, and after")
    save(figure, stem)


NAMED = {
    "forget_acc": "drawings seen in training",
    "forget_unseen_acc": "drawings never seen",
    "forget_all_acc": "all drawings",
}
LOST = {
    "identities_change": "naming other identities",
    "objects_change": "naming objects",
    "utility_change": "other questions",
}


def assistant(frame: pd.DataFrame, title: str, stem: Path) -> None:
    """What is still named, and what is lost, along multiples of the chosen steps: means over names (thick) and each name
    (thin). The step that was chosen is 1; rows as in curve.csv."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
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
    axes[1].set_ylabel("change, points")
    for panel in axes:
        panel.legend(frameon=False)
    figure.suptitle(title)
    save(figure, stem)


Panel = tuple[Sequence[float], dict[str, Sequence[float]], dict[str, tuple[float, float]]]


def canvas(panels: dict[str, Panel], floor: float, title: str, stem: Path) -> None:
    """The best UA against the share of IRA and of CRA that must be retained, a line for each method.

    Args:
        panels: {title: (shares, {method: UA at each share}, {label: (share, UA)} of single marks)}, fractions.
        floor: share below which the search evaluates no candidate in full; shaded.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(0.62 * WIDTH * len(panels), 3.0), squeeze=False, layout="constrained"
    )
    for panel, (what, (shares, curves, marks)) in zip(axes[0], panels.items(), strict=True):
        x = 100 * np.asarray(shares)
        for i, (method, values) in enumerate(curves.items()):
            style = {"marker": marker(i), "ms": 4, "markevery": max(1, len(x) // 10), "mfc": "none"}
            panel.plot(
                x, 100 * np.asarray(values), STYLES[i % 4], color=f"C{i}", lw=1.2, label=naming.label(method), **style
            )
        for (label, (share, ua)), mark in zip(marks.items(), ("*", "P"), strict=False):
            panel.plot(100 * share, 100 * ua, mark, color="k", ms=11, label=label, zorder=5)
            panel.axvline(100 * share, color="k", lw=0.8, ls=":")
        panel.axvspan(x[0], 100 * floor, color="0.92", zorder=0, label="below the search's floor")
        panel.set_xlim(x[0], x[-1])
        panel.set_ylim(-3, 103)
        panel.set_xlabel("IRA and CRA each retain at least this share of the original's, %")
        panel.set_title(what)
    axes[0][0].set_ylabel("best UA, mean over concepts, %")
    legend_below(figure, axes[0][0], 4)
    figure.suptitle(title)
    save(figure, stem)
