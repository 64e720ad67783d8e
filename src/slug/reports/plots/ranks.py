"""Mean ranks of methods on one line, with the critical difference (Demsar, JMLR 2006)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from slug.reports.plots.layout import COLORS, WIDTH, save


def ranks(
    found: Mapping[str, float], bars: Sequence[tuple[float, float]], difference: float, names: int, stem: Path
) -> None:
    """Methods beside their mean ranks, 1 is best; a bar joins ranks that differ by less than the critical difference.

    Args:
        found: {method in words: mean rank}.
        bars: (best, worst) rank of each bar.
        names: number of names that ranks are means of.
    """
    ordered = sorted(found.items(), key=lambda item: item[1])
    figure, panel = plt.subplots(figsize=(WIDTH, 0.7 + 0.19 * (len(ordered) + len(bars))), layout="constrained")
    for y, (method, rank) in enumerate(ordered):
        panel.plot(rank, -y, "o", color=COLORS[0], markersize=4)
        panel.text(rank + 0.12, -y, f"{method}  {rank:.1f}", va="center", fontsize=7)
    for i, (best, worst) in enumerate(bars, 1):
        panel.plot([best - 0.05, worst + 0.05], [-len(ordered) + 1 - 0.8 * i] * 2, color=COLORS[6], linewidth=3)
    panel.set_xlim(0.8, max(len(ordered), 2) * 1.35)
    panel.set_yticks([])
    panel.set_xlabel(f"mean rank over {names} names, test split; methods on one bar differ by less than {difference:.2f}")
    save(figure, stem)
