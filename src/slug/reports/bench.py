"""How long the search takes: results/bench/table.csv and the charts beside it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slug.reports import markdown

SIZES = {"names": "n_names", "pictures": "n_images", "layers": "layers"}  # what grows: its column
PAPER_SIZE = {"pictures": 4500.0}  # the paper's evaluation, to which growth is extrapolated
WORDS = {  # of cases in which a part of the fast search is switched off
    "fast": "the fast search",
    "plain": "the published search",
    "without early stop": "no early stop",
    "without prefix reuse": "no reuse of unedited blocks",
    "without untouched side": "no reuse of the unedited encoder",
    "without shared beginnings": "prompts encoded one by one",
    "without short texts": "no cutting of prompts at their end",
    "without decode once": "pictures decoded every time",
    "with 3 evaluations ahead": "three evaluations ahead",
}


def table(frame: pd.DataFrame) -> str:
    """Markdown: a row for each case, the fast search beside the plain one."""
    heads = "model | case | pictures | names | fast, s | plain, s | plain / fast | floor / fast | peak memory, MB"
    rows = []
    for _, r in frame.iterrows():
        plain, ratio = ("", "") if math.isnan(r["plain_s"]) else (f"{r['plain_s']:.0f}", f"{r['ratio']:.1f}")
        layers = f", {r['layers']:.0f} layers" if r["case"].startswith("growth") else ""
        sizes = [r["model"], r["case"] + layers, r["n_images"], r["n_names"]]
        rows.append([*sizes, f"{r['fast_s']:.1f}", plain, ratio, f"{r['limit_share']:.0%}", f"{r['peak_mem_mb']:.0f}"])
    return markdown.table(heads, rows)


def draw(rows: Sequence[Mapping[str, Any]], label: str, case: str, stem: Path) -> None:
    """The chart of one run of scripts/tools/benchmark_search.py.

    Args:
        rows: its rows of table.csv, the fast search first.
        label: of the model.
    """
    from slug.reports import plots

    if case == "growth":
        panels = {
            what: [(r[column], r["fast_s"], r["peak_mem_mb"]) for r in rows if r["case"] == f"growth of {what}"]
            for what, column in SIZES.items()
        }
        plots.growth(panels, f"{label}: the fast search against its size", stem, PAPER_SIZE)
        return
    times = {r["case"].removeprefix(case).strip() or "fast": r["fast_s"] for r in rows}
    if not math.isnan(rows[0]["plain_s"]):
        times["plain"] = rows[0]["plain_s"]
    size = f"{rows[0]['n_images']:,} pictures, {rows[0]['n_names']:,} names"
    plots.bars({WORDS.get(k, k): v for k, v in times.items()}, "seconds", f"{label}: search over {size}", stem)
