"""How long the search takes: results/bench/table.csv."""

import math

import pandas as pd

from slug.reports import markdown


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
