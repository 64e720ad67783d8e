"""What all plots share: markers, legends, saving."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slug import files

WIDTH = 5.5  # inches: the text width of a paper's page, at which these figures are read
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D5D5D", "#A6761D")  # told apart by all eyes
plt.rcParams.update({"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7})
plt.rcParams.update({"ytick.labelsize": 7, "figure.titlesize": 9, "figure.dpi": 200, "savefig.bbox": "tight"})
plt.rcParams.update({"savefig.pad_inches": 0.02, "legend.columnspacing": 1.2, "legend.handletextpad": 0.6})
plt.rcParams.update({"axes.grid": True, "grid.alpha": 0.25, "axes.spines.top": False, "axes.spines.right": False})
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=COLORS)
MARKERS = "osD^vP*Xhd<>p"
STYLES = ("-", "--", "-.", ":")


def marker(i: int) -> str:
    """The marker of the i-th series."""
    return MARKERS[i % len(MARKERS)]


def grid(rows: int, columns: int, height: float, width: float = WIDTH, **more: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `width` and `height` (inches) with (rows, columns) panels; `more` goes to plt.subplots."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **more)


def tick(right: bool) -> str:
    """A check mark or a cross."""
    return "\u2713" if right else "\u2717"


def show_picture(panel: Axes, image: Any, frame: dict[str, Any] | None = None) -> None:
    """A picture without axes; `frame` is the style of its frame."""
    panel.imshow(image)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    for side in panel.spines.values():
        side.set(visible=True, **frame or {"color": "0.7"})


def step_axis(panel: Axes) -> None:
    """A log axis of step sizes, with plain numbers."""
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    panel.set_xlabel("step size")


def thick(own: bool) -> dict[str, Any]:
    """The frame of a picture: thick if it shows what is forgotten."""
    return {"color": "k" if own else "0.7", "linewidth": 1.6 if own else 0.8}


def legend_below(figure: Figure, panel: Axes, columns: int) -> None:
    """One legend for all panels, of the series in `panel`, below them."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncol=columns, frameon=False)


def horizontal_bars(
    panel: Axes, labels: Iterable[str], values: Iterable[float], colors: list[str], whole_from: float
) -> None:
    """Horizontal bars from top to bottom with their values, as whole numbers from `whole_from` on."""
    labels, values = list(labels), list(values)
    panel.barh(range(len(values)), values, color=colors)
    for y, value in enumerate(values):
        text = f" {value:,.0f}" if value >= whole_from else f" {value:.{2 if whole_from < 100 else 3}g}"
        panel.text(value, y, text, va="center", fontsize=7)
    panel.set_yticks(range(len(labels)), labels)
    panel.grid(axis="y", visible=False)


def save(figure: Figure, stem: Path, dpi: float | None = None) -> None:
    """Write stem.pdf and stem.png (with `dpi`), and close the figure."""
    for kind in ("pdf", "png"):
        with files.replacing(stem.with_name(f"{stem.name}.{kind}")) as temporary:
            metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
            figure.savefig(temporary, format=kind, metadata=metadata, dpi=dpi or "figure")
    plt.close(figure)
