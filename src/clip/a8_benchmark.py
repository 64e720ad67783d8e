"""The benchmark of unlearning methods by its frozen protocol: the plan of its runs, and the report of what came out.

Example: python src/clip/a8_benchmark.py --plan             every command, one a line
         python src/clip/a8_benchmark.py                    the report of what is there
         python src/clip/a8_benchmark.py --quick            of the quick run alone
scripts/run_benchmark_unlearning.sh runs the plan and then the report. Records of other frozen rules are counted and left
out. What gold models say of the names that they never saw is computed here, once. Writes --out: table.csv, README.md and the
plots of mean ranks.
"""

from slug import cli, files
from slug.settings import Benchmark


def parse_args(argv=None) -> Benchmark:
    return cli.parse(__doc__, Benchmark, argv)


def main(argv=None):
    settings = parse_args(argv)
    from slug import schema  # here, as below: --help needs no torch
    from slug.experiments import benchmark
    from slug.reports import benchmark_report, naming, plots, ranking

    if settings.plan:
        print("\n".join(benchmark.plan(settings)))
        return
    out = files.check_writable(settings.out or f"{settings.run.result_dir}/report")
    found = benchmark.assemble(settings)
    frame = benchmark_report.table(found["records"], found["gold"], found["label"])
    limit, pictures = found["said"]["rule"]["max_forget"], {}
    for tower in benchmark_report.TOWERS:
        rows = benchmark_report.of_tower(frame, tower)
        rows = rows[(rows["method"] != schema.ORIGINAL) & (rows["run"] == rows["run"].iloc[0])]
        mean, names = ranking.mean_ranks(rows, limit)
        difference = ranking.critical_difference(len(mean), names)
        if len(mean) > 1 and names > 1:
            pictures[tower] = f"ranks-{tower}.png"
            bars = ranking.cliques(mean, difference)
            plots.ranks({naming.in_words(m): r for m, r in mean.items()}, bars, difference, names, out / f"ranks-{tower}")
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    page = benchmark_report.page(frame, found["said"], found["label"], found["left_out"], pictures)
    files.write_text(out / "README.md", page)
    print(page)
    print(f"{len(frame)} rows: {out / 'table.csv'}; report: {out / 'README.md'}")


if __name__ == "__main__":
    cli.exit_with(main)
