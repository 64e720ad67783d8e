"""Sheets of pictures: what a model calls them, or what a pipeline draws, before and after."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slug.reports.plots.layout import grid, save, show_picture, thick, tick

Texts = Sequence[str]
Said = Sequence[tuple[str, str]]  # of each picture what was said before and after
Flags = Sequence[Sequence[bool]]
PARTS = {True: "to be forgotten", False: "to be retained"}
MOST = 7  # pictures side by side; more would be too small in a column


def _lines(own: Sequence[bool]) -> tuple[list[tuple[bool, list[int]]], int]:
    """([(whether it is to be forgotten, indices)] of each line of pictures, what is forgotten first; pictures in the longest
    line). A part of at least two pictures fills its lines evenly."""
    found = []
    for mine in PARTS:
        places = [i for i, flag in enumerate(own) if flag == mine]
        found += [(mine, part.tolist()) for part in np.array_split(places, -(-len(places) // MOST))] if places else []
    return found, max(len(places) for _, places in found)


def pictures(
    images: Sequence[Any], own: Sequence[bool], said: Said, title: str, stem: Path, right: Flags | None = None
) -> None:
    """Pictures, what is forgotten (`own`) above and the rest below, each with what was said before and after.

    Args:
        images: (S, S, 3) arrays or PIL pictures.
        right: for each picture whether the answers are right, which is marked.
    """
    lines, columns = _lines(own)
    wrap = max(10, 105 // columns)

    def answer(i: int, when: int) -> str:
        text = said[i][when] or "(nothing)"
        text = "the same" if when and said[i][0] == said[i][1] else text
        mark = f"\u00a0{tick(right[i][when])}" if right else ""  # a no-break space keeps a mark with its name
        return textwrap.fill(("\u2192 " if when else "") + text + mark, wrap)

    texts = [f"{answer(i, 0)}\n{answer(i, 1)}" for i in range(len(images))]
    heights = [5.2 / columns + 0.12 * max(texts[i].count("\n") + 1 for i in places) for _, places in lines]
    figure, panels = grid(len(lines), columns, sum(heights) + 0.4, height_ratios=heights)
    for line, (mine, places) in zip(panels, lines, strict=True):
        line[0].set_ylabel(PARTS[mine])
        for panel in line[len(places) :]:
            panel.set_axis_off()
        for panel, i in zip(line, places, strict=False):
            show_picture(panel, images[i], thick(mine))
            panel.set_xlabel(texts[i], fontsize=6)
    figure.suptitle(title)
    save(figure, stem)


def sheet(
    states: Sequence[Any],
    titles: Texts,
    right: Flags,
    own: int,
    title: str,
    stem: Path,
    seen_by: str = "both classifiers see",
) -> None:
    """Pictures of a pipeline, a row for each state (before, after): above those of the forgotten concept, below others.

    Args:
        states: for each state a (K, 3, S, S) uint8 tensor.
        titles, right: what was asked for, and for each state whether the judge sees it.
        own: how many of the K show the forgotten concept.
        seen_by: who judges, and the verb.
    """
    lines, columns = _lines([k < own for k in range(len(titles))])
    named = ("before", "after")[: len(states)]
    rows = [(mine, places, i) for mine, places in lines for i in range(len(states))]
    figure, panels = grid(len(rows), columns, (5.2 / columns + 0.3) * len(rows) + 0.4)
    for line, (mine, places, i) in zip(panels, rows, strict=True):
        line[0].set_ylabel(f"{PARTS[mine]}:\n{named[i]}", fontsize=7)
        for panel in line[len(places) :]:
            panel.set_axis_off()
        for panel, k in zip(line, places, strict=False):
            show_picture(panel, states[i][k].permute(1, 2, 0).numpy(), thick(mine))
            panel.set_xlabel(tick(right[i][k]), fontsize=7, labelpad=1)
            if i == 0:
                panel.set_title(titles[k], fontsize=6.5)
    figure.suptitle(f"{title}\n{tick(True)}: {seen_by} what was asked for")
    save(figure, stem)


def compared(images: Sequence[Any], before: Sequence[Any], after: Sequence[Any], title: str, stem: Path) -> None:
    """Pictures with the model's answers before and after, [(name, probability)], as bars."""
    figure, panels = grid(len(images), 3, 1.25 * len(images) + 0.5, width_ratios=(1, 1.3, 1.3))
    for row, (line, image, *answers) in enumerate(zip(panels, images, before, after, strict=True)):
        show_picture(line[0], image)
        for panel, found, when, color in zip(line[1:], answers, ("before", "after"), ("0.55", "C0"), strict=True):
            values = np.array([100 * share for _, share in found])
            panel.barh(range(len(values)), values, color=color)
            panel.set_yticks(range(len(values)), [textwrap.shorten(name, 22, placeholder="...") for name, _ in found])
            for y, value in enumerate(values):
                panel.text(value + 2, y, f"{value:.0f}", va="center", fontsize=6.5)
            panel.set_xlim(0, 118)
            panel.set_xticks([0, 50, 100])
            panel.invert_yaxis()
            panel.grid(axis="y", visible=False)
            if row == 0:
                panel.set_title(when)
            if row == len(images) - 1:
                panel.set_xlabel("probability, %")
    figure.suptitle(title)
    save(figure, stem)


def cells(
    images: Any, right: Sequence[bool], left_out: Sequence[bool], names: tuple[Texts, Texts], title: str, stem: Path
) -> None:
    """One picture (3, S, S) of every cell of a table, in the order of its rows, on lines of at most ten columns.

    Args:
        right: cells that the judges see; others carry a cross.
        left_out: cells that training left out, in a thick frame.
        names: of the rows and of the columns.
    """
    down, across = names
    blocks, wide = -(-len(across) // 10), min(10, len(across))
    figure, panels = grid(blocks * len(down), wide, 0.62 * blocks * len(down) + 0.5)
    for panel in panels.flat:
        panel.set_axis_off()
    for i in range(len(down) * len(across)):
        row, column = divmod(i, len(across))
        line = (column // wide) * len(down) + row
        panel = panels[line, column % wide]
        panel.set_axis_on()
        show_picture(panel, images[i].permute(1, 2, 0).numpy(), thick(left_out[i]))
        if not right[i]:
            panel.set_xlabel(tick(False), fontsize=6, labelpad=0)
        if row == 0:
            panel.set_title(across[column], fontsize=6.5)
        if column % wide == 0:
            panel.set_ylabel(down[row], fontsize=6.5)
    figure.suptitle(title)
    save(figure, stem)
