"""Does what was forgotten come back? Tests of every edit on record: relearning, coarser weights, a linear probe, other
spellings, design houses, sums of features, averages with the original; SLUG and the baselines alike.

Example: python src/clip/a7_lasting.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a7_lasting.py --celeb-name Lion Owl --records results/demo --unlearn-method slug ssd
         python src/clip/a7_lasting.py --celeb-name Lion Owl --model ... --report    (of runs that are there)
Needs the records of a2_unlearn_slug.py and a3_unlearn_compare.py, and the tars. SLUG's edits are its deltas. The weights of
a baseline's chosen candidate are not kept, so its training is done again with the setting, seed and data of its record
(salun and ssd need their gradients, a1_compute_grad.py); where an edit does not score what its record says, a note says so.
Writes results/lasting/: runs.parquet, one row for each model, name, method, test and setting; REPORT.md with the verdicts;
the relearning curves. Models of --gold, which never saw some of the names, are put to the same tests. A (model, name,
method, test) that was finished with the same settings is kept; while the stage runs, what is finished lies in parts/ beside
runs.parquet. With --out the report, the curves and their rows go to that folder.
"""

import re

from slug import cli, files
from slug.errors import SlugError
from slug.settings import Durability


def parse_args(argv=None) -> Durability:
    return cli.parse(__doc__, Durability, argv)


def rows_of(settings: Durability):
    """The rows that the report is about."""
    from slug.data.names import plain_name
    from slug.experiments import durability, durability_gold

    frame = durability.parts(settings).collect(durability.AGAIN)
    if not settings.report:
        return durability.rows(settings, durability.run(settings) + durability_gold.run(settings))
    names = {plain_name(n).casefold() for n in settings.data.celeb_name}
    label = durability.label(settings)
    frame = frame[frame["name"].str.casefold().isin(names)]
    models = [m for m in frame["model"].unique() if re.fullmatch(rf"{re.escape(label)}(-[0-9a-f]{{8}})?", m)]
    if len(models) > 1:
        raise SlugError(f"there are rows of several weights, {', '.join(models)}; run without --report to say which")
    frame = frame[frame["model"].isin(models)]
    if frame.empty:
        said = f"{durability.parts(settings).table} has no rows of {label} on {', '.join(settings.data.celeb_name)}"
        raise SlugError(f"{said}; give their --model, or run without --report")
    return frame


def main(argv=None):
    settings = parse_args(argv)
    from slug import methods, system  # here, as below: --help needs no torch
    from slug.reports import durability_report, markdown, plots, reading

    system.settle(settings.run.device, settings.run.seed)
    folder = files.check_writable(settings.run.result_dir) / "lasting"
    out = files.check_writable(settings.out or folder)
    frame = rows_of(settings)
    with reading.as_written(folder / "runs.parquet", "take it away and run this stage again"):
        order = {m: i for i, m in enumerate(methods.names())}
        frame = frame.sort_values("method", key=lambda c: c.map(order), kind="stable")
        if out != folder:
            with files.replacing(out / "runs.parquet") as temporary:
                frame.to_parquet(temporary, index=False)
        curves, original = durability_report.curves(frame)
        plot = out / f"{files.safe_name(frame['model'].iloc[0])}-relearning"
        png = plot.with_name(f"{plot.name}.png")
        if curves:  # there are none where a run was stopped before
            plots.relearning(curves, original, durability_report.title(frame), plot)
        files.write_text(out / "REPORT.md", durability_report.report(frame, png.name if curves else ""))
        if settings.readme:
            markdown.fill_blocks(settings.readme, {"lasting": durability_report.page_block(frame)})
        print(durability_report.overview(durability_report.table(durability_report.apart(frame)[0])))
        print(f"{len(frame)} rows: {out / 'runs.parquet'}; report: {out / 'REPORT.md'}")


if __name__ == "__main__":
    cli.exit_with(main)
