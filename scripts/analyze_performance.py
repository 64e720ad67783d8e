#!/usr/bin/env python
"""A table from step logs and comparison logs, ours or published: a row for each log, with the published choice and ours.

Example: python scripts/analyze_performance.py                                   (results/clip/steps and compare)
         python scripts/analyze_performance.py other/logs --out other/logs.csv
         python scripts/analyze_performance.py results/uncanvas/csv                (UnlearnCanvas)

`first zero` is the published rule: the first line with fgt_acc@1 = 0. `best` is the line with the highest mean of
celeba100@1 and test_acc@1 among those with an fgt_acc@1 of at most --max-forget. Our logs hold the
validation split: take figures to report from a4_report.py. A folder may also hold tables of UnlearnCanvas
(style.csv, class.csv): of each concept the last step counts, and means are printed; --recognised is for tables whose UA says
how often a concept is still recognised.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd

from slug import cli, files
from slug.artifacts import published, records
from slug.errors import SlugError
from slug.settings import MAX_FORGET

Line = dict[str, float]
CANVAS = ("style.csv", "class.csv")


def figures(row: Line | None, label: str) -> dict[str, float]:
    """The figures of a line as columns."""
    columns = {"iter": "iter", "FA@1": "forget_acc1", "identities": "identities_acc1", "objects": "objects_acc1"}
    return {f"{label}: {what}": row[c] if row else math.nan for what, c in columns.items()}


def summary(path: Path, max_forget: float = MAX_FORGET) -> dict[str, Any] | None:
    """One log as a row; None for an empty log."""
    rows = records.parse_log(path)
    if not rows:
        return None
    start, lines = rows[0], rows[1:]
    zero = next((r for r in lines if r["forget_acc1"] == 0), None)
    forgets = [r for r in lines if r["forget_acc1"] <= max_forget and not math.isnan(r["identities_acc1"])]
    best = max(forgets, key=lambda r: r["identities_acc1"] + r["objects_acc1"], default=None)
    row: dict[str, Any] = {"log": path.stem, "lines": len(lines), "original: FA@1": start["forget_acc1"]}
    row |= figures(zero, "first zero") | figures(best, "best")
    return row | {"time": max((r["time"] for r in lines), default=math.nan)}


def canvas_means(path: Path, recognised: bool) -> str:
    """Means over concepts of a table of UnlearnCanvas, of the last step of each, as a line."""
    last = published.canvas_table(path, recognised=recognised).groupby("Unlearn Name", sort=False).tail(1)
    means = ", ".join(f"{column} {100 * last[column].mean():.2f}" for column in published.FIGURES)
    return f"{path.name}: {len(last)} concepts, means in %: {means}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=["results/clip/steps", "results/clip/compare"], help="folders of logs")
    parser.add_argument("--out", default="", help="CSV to write as well")
    most = "fgt_acc@1 up to which a line may be the best (default: %(default)s)"
    parser.add_argument("--max-forget", type=float, default=MAX_FORGET, help=most)
    parser.add_argument(
        "--recognised", action="store_true", help="UA of the CSVs is how often a concept is still recognised"
    )
    args = parser.parse_args()
    tables = [p for f in args.folders for p in sorted(files.resolve(f).glob("*.csv")) if p.name in CANVAS]
    for path in tables:
        print(canvas_means(path, args.recognised))
    paths = [p for f in args.folders for p in sorted(files.resolve(f).glob("*.txt"))]
    table = pd.DataFrame([row for row in (summary(p, args.max_forget) for p in paths) if row])
    if table.empty and tables:
        return
    if table.empty:
        raise SlugError(f"there are no logs in {', '.join(args.folders)}; make them with: bash scripts/run_clip_slug.sh")
    print(table.to_string(index=False, na_rep="-", float_format=lambda x: f"{x:.4g}"))
    if args.out:
        files.write_text(files.resolve(args.out), table.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    cli.exit_with(main)
