"""Fold the records of results/clip into table.csv and report.md, and print the table.

Example: python src/clip/a4_report.py --result-dir results            writes results/clip/report/
         python src/clip/a4_report.py --out results/demo --readme README.md    also copies plots and logs, fills README
         python src/clip/a4_report.py --study results/study            a6_study.py's runs: verdicts on the paper's claims
"""

import os

import numpy as np
import pandas as pd

from slug import cli, files
from slug.artifacts import records
from slug.errors import SlugError
from slug.experiments import study
from slug.reports import claims, plots, report


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--out", default="", help="folder to write; default {result-dir}/clip/report")
    parser.add_argument("--readme", default="", help="Markdown file whose results block is filled from the table")
    parser.add_argument("--study", default="", help="folder of a study's runs.parquet: report on it instead")
    parser.add_argument("--report", default="", help="the study's report; else REPORT.md beside its table")
    return parser.parse_args(argv)


def draw(found, folder):
    """Forget against retain accuracy of every candidate, per name that a baseline was run on; and the cost bars."""
    frame = report.compared(report.table(found))
    for name in frame["name"].unique():
        records_of = {r["method"]: r for r in found if r["name"] == name}
        points, chosen = {}, {}
        for method in (m for m in report.METHODS if m in records_of):
            rows = pd.read_csv(folder / records.steps_file(records_of[method]))
            retain = rows[["identities_trace", "objects_trace"]].mean(axis=1, skipna=False)
            full = rows[["identities_acc1", "objects_acc1"]].mean(axis=1, skipna=False)
            rows["retain"] = retain.fillna(full)
            points["original"] = rows[["forget_acc1", "retain"]].to_numpy()[:1]
            points[method] = rows[["forget_acc1", "retain"]].dropna().to_numpy()[1:]
            best = records_of[method]
            rows = rows[(rows["layer"] == best["layer"]) & np.isclose(rows["step"], best["step"])]
            chosen[method] = rows[["forget_acc1", "retain"]].to_numpy()[0]
        title = f"{name}: every candidate, validation split; filled: the one kept; line: SLUG's front"
        stem = folder / records.file_name(records_of["slug"]["model"], name, "", "tradeoff")
        plots.tradeoff(points, chosen, title, stem)
    means = frame[frame["method"] != "original"].groupby("method", observed=True)
    means = means[["seconds", "peak_mem_mb", "delta_bytes"]].mean()
    bars = {m: (s, mb, size / 1e3) for m, s, mb, size in means.itertuples()}
    title = f"Cost of the chosen edit, mean over {frame['name'].nunique()} names"
    plots.costs(bars, title, folder / f"{files.safe_name(found[0]['model'])}-costs")


def copy(found, source, out):
    """What a folder needs that is read without the run it came from: pictures, logs, records and deltas."""
    for record in found:
        names = [records.record_file(record), records.steps_file(record)]
        if record["method"].startswith("slug"):
            names += [p.name for p in source.glob(records.file_name(record["model"], record["name"], ".png", part="*"))]
            names.append(record["delta"])
        for name in dict.fromkeys(names):
            files.place(source / name, out / name)
    for path in [*source.glob("*-important_layers.txt"), *source.glob("*-costs.png")]:
        files.place(path, out / path.name)


def report_study(args):
    """The report of a study, its plot and, in --out, a copy of its table; with --readme its block too."""
    source = files.resolve(args.study)
    out = files.resolve(args.out) if args.out else source
    path = files.resolve(args.report) if args.report else out / "REPORT.md"
    frame = study.read(source / "runs.parquet")
    title = "each variant beside the standard: names (circles), mean and 95% interval"
    plots.variants(claims.against_standard(frame), report.mean_interval, title, out / "variants")
    files.place(out / "variants.png", out / "variants.png")
    if out != source:
        files.place(source / "runs.parquet", out / "runs.parquet")
    files.write_text(path, claims.markdown(frame, os.path.relpath(out / "variants.png", path.parent)))
    if args.readme:
        report.fill_blocks(args.readme, claims.blocks(frame))
    print(claims.counts(frame))
    print(claims.table(frame))
    print(f"verdicts and variants: {path}")


def main(argv=None):
    args = parse_args(argv)
    if args.study:
        report_study(args)
        return
    source = files.resolve(args.result_dir) / "clip"
    out = files.resolve(args.out) if args.out else source / "report"
    found = records.read_all(source)
    if not found:
        raise SlugError(f"no records in {source}; make them with: bash scripts/run_clip_slug.sh")
    frame = report.write(out, report.table(found))
    compare = report.has_baselines(frame) and "slug" in set(frame["method"])
    for record in found:
        if "fronts" in record:
            report.draw_steps(record, source)
    if compare:
        draw(found, source)
    if args.out:
        copy(found, source, out)
    if args.readme:
        ours = frame[frame["method"].str.match("original|slug")]  # the comparison has a block of its own
        blocks = {"results": "\n\n".join([report.pooled(frame), report.means_table(ours), report.names_table(frame)])}
        by_known = sorted(found, key=lambda r: r["splits"]["test"]["original"]["forget_acc1"])
        by_known = {r["kind"]: r for r in by_known if r["method"] == "slug"}
        shown = [by_known[k] for k in ("identity", "object") if k in by_known]
        links = [
            f"![{r['name']} before and after](results/demo/{records.file_name(r['model'], r['name'], '.png', 'pictures')})"
            for r in shown
        ]
        blocks["pictures"] = "\n\n".join(links)
        if compare:
            parts = [report.comparison_table(frame), report.claims(frame), report.costs_table(frame)]
            blocks["comparison"] = "\n\n".join(parts)
        report.fill_blocks(args.readme, blocks)
    print(report.means_table(frame))
    if compare:
        print("\n".join([report.comparison_table(frame), report.claims(frame), report.costs_table(frame)]))
    print(report.names_table(frame))
    print(report.pooled(frame))
    print("winner layers: " + ", ".join(f"{r['name']} {r['layer']}" for r in found if "fronts" in r))
    print(f"table and report: {out}; pictures: {source}/*.png")


if __name__ == "__main__":
    cli.exit_with(main)
