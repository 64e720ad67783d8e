"""Turn the records in results/clip into one page to look at, table.csv and report.md, draw the plots, print the verdict.

Example: python src/clip/a4_report.py --result-dir results            writes results/clip/report.html and report/
         python src/clip/a4_report.py --out results/demo --readme results/demo/README.md  (fills it, copies plots)
         python src/clip/a4_report.py --study results/study            a6_study.py's runs: verdicts on the paper's claims
         python src/clip/a4_report.py --samples results/grads          a1 --checkpoints: how many pairs are enough
"""

from collections.abc import Sequence

from slug import cli, files
from slug.errors import SlugError
from slug.settings import Report


def parse_args(argv: Sequence[str] | None = None) -> Report:
    return cli.parse(__doc__, Report, argv)


def on_study(settings: Report) -> None:
    """The report on a study's runs."""
    from slug.experiments import runner, study_variants
    from slug.reports import reading, study_report

    source = files.resolve(settings.study)
    out = files.resolve(settings.out) if settings.out else source
    path = files.resolve(settings.report) if settings.report else out / "REPORT.md"
    remedy = "run scripts/run_study.sh first, or give the folder of its table"
    frame = runner.read_table(source / "runs.parquet", remedy, study_variants.SCHEMA)
    with reading.as_written(source / "runs.parquet", remedy):
        study_report.write(frame, source, out, path, settings.readme)


def on_records(settings: Report) -> None:
    """The report on the records of a CLIP."""
    from slug.artifacts import records
    from slug.reports import clip_report, clip_tables, markdown, reading, verdicts
    from slug.reports.pages import clip as page

    source = files.resolve(settings.run.result_dir) / "clip"
    out = files.resolve(settings.out) if settings.out else source / "report"
    found = records.read_all(source)
    if not found:
        raise SlugError(f"there are no records in {source}; make them with: bash scripts/run_clip_slug.sh")
    with reading.as_written(source, "run the stages of its records again"):
        frame = clip_report.write(out, clip_tables.table(found))
        clip_report.draw(found, source, frame)
    if settings.out:
        clip_report.copy(found, source, out)
    if settings.readme:
        markdown.fill_blocks(settings.readme, clip_report.page_blocks(frame, found))
    print(clip_report.summary(frame, found))
    print(f"table and report: {out}; pictures: {source}/*.png")
    shown = page.write((out if settings.out else source) / page.FILE, frame, found, source)
    print(f"{verdicts.verdict(found).text()}\nto look at: {shown}")


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    if settings.samples:
        from slug.reports import samples

        out = files.resolve(settings.out or f"{settings.run.result_dir}/study/samples")
        samples.write(files.existing(settings.samples, "gradients", samples.REMEDY), out, settings.readme)
    else:
        (on_study if settings.study else on_records)(settings)


if __name__ == "__main__":
    cli.exit_with(main)
