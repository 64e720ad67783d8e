"""How many pictures are enough: cosines and Pareto fronts by the number of pairs that gradients are taken of."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from slug.reports.plots.layout import STYLES, grid, legend_below, marker, save
from slug.schema import ALL_LAYERS

TITLES = {"forget": "forget gradient", "train": "retain gradient"}


def pairs_axis(panel: Axes, values: Sequence[float]) -> None:
    """A log axis of numbers of pairs, with these numbers as ticks where there is room."""
    panel.set_xscale("log")
    room, shown = (max(values) / min(values)) ** (1 / 7), [values[0]]
    for value in values[1:]:
        shown += [value] if value >= room * shown[-1] else []
    panel.set_xticks(shown, [f"{v:,.0f}" for v in shown])
    panel.minorticks_off()
    panel.set_xlabel("pairs of picture and caption")


def sample_cosines(rows: pd.DataFrame, levels: Sequence[float], stem: Path) -> None:
    """The cosine of the gradient of the first pairs with that of all, against their number, a panel for each side.

    Thin: each name, all layers as one vector; thick: their mean; shaded: the middle half of single layers, over all names.

    Args:
        rows: the columns of schema.SAMPLES_COLUMNS.
    """
    sides = [s for s in TITLES if (rows["side"] == s).any()]
    figure, panels = grid(1, len(sides), 2.5)
    for panel, side in zip(panels[0], sides, strict=True):
        mine = rows[rows["side"] == side]
        whole, single = mine[mine["layer"] == ALL_LAYERS], mine[mine["layer"] != ALL_LAYERS]
        quarters = single.groupby("pairs")["cosine"].quantile(np.array([0.25, 0.75])).unstack()
        panel.fill_between(quarters.index, quarters[0.25], quarters[0.75], color="C0", alpha=0.15, lw=0,
                           label="middle half of single layers")  # fmt: skip
        for i, (_, own) in enumerate(whole.groupby("name", sort=False)):
            panel.plot(own["pairs"], own["cosine"], color="C0", lw=0.5, alpha=0.6, label="" if i else "one name, all layers")
        mean = whole.groupby("pairs")["cosine"].mean()
        panel.plot(mean.index, mean, "o-", color="C0", ms=3, lw=1.6, label="mean over names")
        for level, style in zip(levels, STYLES[1:], strict=False):
            panel.axhline(level, color="k", lw=0.8, ls=style, label=f"{level:.0%}")
        pairs_axis(panel, sorted(mine["pairs"].unique()))
        panel.set_title(TITLES[side])
    panels[0, 0].set_ylabel("cosine with the gradient\nof all pairs")
    legend_below(figure, panels[0, 0], 3)
    save(figure, stem)


def sample_fronts(rows: pd.DataFrame, overlap: pd.DataFrame, stem: Path) -> None:
    """Above: the Pareto fronts of one name by the number of pairs, beside the front of all pairs. Below: the share of the
    final front's layers that are found with so many pairs, each name and their mean.

    Args:
        rows: the columns of schema.SAMPLE_FRONTS_COLUMNS; the name is their first one.
        overlap: see reports.samples.overlap.
    """
    first = rows["name"].iloc[0]
    encoders = list(dict.fromkeys(rows["encoder"]))
    figure, panels = grid(2, len(encoders), 4.4)
    for column, encoder in enumerate(encoders):
        mine = rows[(rows["name"] == first) & (rows["encoder"] == encoder) & rows["on_front"].astype(bool)]
        every = sorted(n for n in mine["samples"].unique() if n)
        counts = [*every[:: max(1, len(every) // 4)], 0]  # more fronts than these hide each other
        upper, lower = panels[0, column], panels[1, column]
        shades = plt.get_cmap("Blues")(np.linspace(0.3, 0.95, len(counts)))
        for i, count in enumerate(counts):
            front = mine[mine["samples"] == count].sort_values("importance")
            style = {"color": "k", "lw": 1.6, "zorder": 4} if not count else {"color": shades[i], "lw": 0.9}
            label = f"first {count:,} pairs" if count else "all pairs"
            upper.plot(front["alignment"].abs(), front["importance"], marker(i), ls="-", ms=3.5, label=label, **style)
        upper.set_yscale("log")
        upper.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        upper.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        upper.yaxis.set_minor_locator(ticker.NullLocator())
        upper.set_title(f"{first}: {encoder} encoder")
        upper.set_xlabel("alignment: |cosine|")
        part = overlap[overlap["encoder"] == encoder]
        for _, own in part.groupby("name", sort=False):
            lower.plot(own["samples"], 100 * own["kept"], color="C0", lw=0.5, alpha=0.6)
        mean = part.groupby("samples")["kept"].mean()
        lower.plot(mean.index, 100 * mean, "o-", color="C0", ms=3, lw=1.6)
        lower.set_ylim(-3, 103)
        if len(part):
            pairs_axis(lower, sorted(part["samples"].unique()))
    panels[0, 0].set_ylabel("importance")
    panels[1, 0].set_ylabel("layers found of the\nfront of all pairs, %")
    legend_below(figure, panels[0, 0], 4)
    save(figure, stem)
