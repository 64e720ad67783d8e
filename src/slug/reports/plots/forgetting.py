"""Plots of a concept that was forgotten by someone's own pictures."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from slug.reports import searches
from slug.reports.plots.layout import STYLES, legend_below, marker, save, show_picture, step_axis, thick
from slug.schema import layer_label
from slug.settings import MAX_FORGET


def _curves(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{label of a layer, or of a baseline's setting: its candidates}, in the order of the search."""
    found = {}
    for name, part in rows.groupby("layer", sort=False):
        layer = str(name)
        side = "" if " " in layer else "vision " if layer.startswith("vis") else "text "
        found[side + layer_label(layer)] = part.sort_values("step")
    return found


def _label(words: str, count: int, width: int = 34) -> str:
    """Words and a count as the label of an axis, on lines of `width`."""
    return "\n".join(textwrap.wrap(f"{words}, % (n\u00a0=\u00a0{count})", width, break_on_hyphens=False))


def tradeoff(
    rows: pd.DataFrame,
    start: Mapping[str, Any],
    winner: Mapping[str, Any],
    tasks: Mapping[str, str],
    counts: Mapping[str, int],
    title: str,
    stem: Path,
    *,
    forgotten: float = MAX_FORGET,
) -> None:
    """Retained figures against recognition of the concept, of every candidate.

    A candidate that was not worth scoring on all retained pictures is hollow: the unedited figure plus the change on
    counts["trace"] of them.

    Args:
        rows, start, winner: candidates, the unedited model and the chosen candidate, on the validation split.
        tasks: {task: words}; each has a panel.
        counts: {"forget", "trace" or task: pictures}.
        forgotten: forget accuracy up to which a candidate counts as forgetting.
    """
    figure, panels = plt.subplots(1, len(tasks), figsize=(4.1 * len(tasks) + 0.6, 4.1), squeeze=False, layout="constrained")
    for panel, (task, words) in zip(panels[0], tasks.items(), strict=True):
        column = f"{task}_acc1"
        for i, (label, part) in enumerate(_curves(rows).items()):
            exact, trace = searches.curve(part, start, task)
            x, color = 100 * part["forget_acc1"].to_numpy(float), f"C{i % 10}"
            panel.scatter(x, 100 * trace, marker=marker(i), edgecolors=color, facecolors="none", s=28)
            panel.scatter(x, 100 * exact, marker=marker(i), color=color, s=28, label=label)
        panel.scatter(100 * start["forget_acc1"], 100 * start[column], marker="s", s=45, color="k", label="unedited model")
        panel.scatter(
            100 * winner["forget_acc1"], 100 * winner[column], marker="*", s=170, color="C3", label="chosen", zorder=5
        )
        panel.axvspan(-3, 100 * forgotten, color="C2", alpha=0.12, lw=0)
        panel.set_xlim(-3, 103)
        panel.set_xlabel(f"recognised pictures, % (n = {counts['forget']})")
        panel.set_ylabel(_label(words, counts[task]))
    hollow = f"; hollow: change on {counts['trace']} pictures" if counts["trace"] else ""
    figure.suptitle(f"{title}: every candidate, validation split{hollow}", fontsize=10)
    legend_below(figure, panels[0, 0], 4)
    save(figure, stem)


def steps(
    rows: pd.DataFrame,
    start: Mapping[str, Any],
    winner: Mapping[str, Any],
    tasks: Mapping[str, str],
    counts: Mapping[str, int],
    title: str,
    stem: Path,
) -> None:
    """Recognition of the concept and retained figures against the step, a curve for each layer; arguments as `tradeoff`."""
    columns = {"forget": "recognised pictures", **tasks}
    figure, panels = plt.subplots(
        1, len(columns), figsize=(3.7 * len(columns), 3.9), layout="constrained", squeeze=False, sharex=True
    )
    for panel, (task, words) in zip(panels[0], columns.items(), strict=True):
        column = f"{task}_acc1"
        for i, (label, part) in enumerate(_curves(rows).items()):
            exact, trace = searches.curve(part, start, task)
            step, some = part["step"].to_numpy(float), np.where(np.isnan(exact), trace, exact)
            known, color = ~np.isnan(some), f"C{i % 10}"
            panel.plot(step[known], 100 * some[known], STYLES[i % 4], color=color, lw=1)
            panel.plot(step, 100 * trace, marker(i), ms=4, mfc="none", color=color)
            panel.plot(step, 100 * exact, marker(i), ms=4, color=color)
            panel.plot([], [], STYLES[i % 4], marker=marker(i), ms=4, lw=1, color=color, label=label)
        panel.axhline(100 * start[column], color="0.4", lw=1, ls=(0, (1, 1)))
        panel.plot(winner["step"], 100 * winner[column], "*", color="k", ms=12, zorder=5)
        step_axis(panel)
        panel.set_ylabel(_label(words, counts[task]))
    hollow = f"; hollow: change on {counts['trace']} pictures" if counts["trace"] else ""
    figure.suptitle(f"{title}: validation split; dotted: unedited model; star: chosen{hollow}", fontsize=10)
    legend_below(figure, panels[0, 0], 4)
    save(figure, stem)


def pictures(images: Any, own: Sequence[bool], before: Sequence[str], after: Sequence[str], title: str, stem: Path) -> None:
    """Pictures (K, S, S, 3) of the concept (top) and of other things with the model's answers before and after."""
    rows = [[i for i, mine in enumerate(own) if mine], [i for i, mine in enumerate(own) if not mine]]
    columns = max(map(len, rows))
    figure, panels = plt.subplots(2, columns, figsize=(1.5 * columns, 4.4), layout="constrained", squeeze=False)
    for line, places in zip(panels, rows, strict=True):
        for panel in line[len(places) :]:
            panel.set_axis_off()
        for panel, i in zip(line, places, strict=False):
            show_picture(panel, images[i], thick(own[i]))
            said = [before[i], f"\u2192 {after[i]}"] if after[i] != before[i] else [before[i], "\u2192 the same"]
            panel.set_xlabel("\n".join(textwrap.fill(text, 19) for text in said), fontsize=7.5)
    panels[0, 0].set_ylabel("forgotten")
    panels[1, 0].set_ylabel("other things")
    figure.suptitle(title, fontsize=10)
    save(figure, stem)


def compared(images: Sequence[Any], before: Sequence[Any], after: Sequence[Any], title: str, stem: Path) -> None:
    """Pictures with the model's answers before and after, [(name, probability)], as bars."""
    figure, panels = plt.subplots(
        len(images),
        3,
        figsize=(8.2, 2.1 * len(images) + 0.4),
        layout="constrained",
        squeeze=False,
        width_ratios=(1, 1.5, 1.5),
    )
    for row, (line, image, *answers) in enumerate(zip(panels, images, before, after, strict=True)):
        show_picture(line[0], image)
        for panel, found, when, color in zip(line[1:], answers, ("before", "after"), ("0.55", "C0"), strict=True):
            values = np.array([100 * share for _, share in found])
            panel.barh(range(len(values)), values, color=color)
            panel.set_yticks(range(len(values)), [textwrap.shorten(name, 26, placeholder="...") for name, _ in found])
            for y, value in enumerate(values):
                panel.text(value + 1.5, y, f"{value:.0f}", va="center", fontsize=8)
            panel.set_xlim(0, 112)
            panel.set_xticks([0, 50, 100])
            panel.invert_yaxis()
            panel.grid(axis="y", visible=False)
            if row == 0:
                panel.set_title(when, fontsize=9)
            if row == len(images) - 1:
                panel.set_xlabel("probability among the names, %")
    figure.suptitle(title, fontsize=10)
    save(figure, stem)
