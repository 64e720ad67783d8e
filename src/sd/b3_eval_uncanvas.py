"""UA, IRA, CRA and FID of everything that b2_unlearn_sd.py wrote for a pipeline, on the test split of the prompts.

Example: python src/sd/b3_eval_uncanvas.py --pipeline data/demo/models/mini-sd --prompts data/demo/UnlearnCanvas/prompts.csv
         python src/sd/b3_eval_uncanvas.py --judge clip --prompts data/prompts.csv
Writes under results/uncanvas/, or --out: csv/{style,class}.csv in the published columns (of slug, else slug_w, slug_ws),
table.csv, report.md and sheets of pictures; and of the candidates on the validation split candidates.csv, settings.json
(with seeds and times) and tradeoff, a plot of the best UA against the shares of IRA and CRA that are retained. --out also
gets the prompts, whose seeds the figures are of.
FID is of the retained concepts, one figure for each method: its pipelines together make 1,000 pictures or more that show
nothing they forgot, the unedited pipeline makes pictures of the same prompts and seeds, and both are compared with as many
of --reference. Without --fid-weights FID's features are the object classifier's: never set that beside published figures.
With --judge clip, for names that no classifier knows, the unedited CLIP judges instead, without FID and the plot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli
from slug.cli import Count, Folder, flag, group
from slug.settings import CANVAS, Judging, Pipeline, Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline)
    judging: Judging = group(Judging)
    judge: str = flag("classifiers", "what judges the pictures", choices=("classifiers", "clip"))
    reference: str = flag(f"{CANVAS}/data", "real pictures, <Style>/<Object>/<n>.jpg")
    fid_weights: str = flag("", "Inception weights in pytorch-fid's format, for FID as published")
    no_fid: bool = flag(False, "leave FID out, which takes pictures besides the test split's")
    part: tuple[Count, ...] = flag((), "only make the pictures of the I-th of N parts", nargs=2, metavar=("I", "N"))
    out: Folder = flag("", "folder to write instead of {result-dir}/uncanvas")
    readme: str = flag("", "Markdown file whose uncanvas block is filled")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.experiments.pipeline_setup import Canvas  # here: --help needs no torch
    from slug.experiments.pipelines_report import Examination

    canvas = Canvas(settings.run, settings.pipeline, settings.judging, settings.judge)
    out = canvas.out(settings.out)
    examination = Examination(
        canvas,
        by_clip=settings.judge == "clip",
        with_fid=not settings.no_fid,
        reference=settings.reference,
        fid_weights=settings.fid_weights,
    )
    if settings.part:
        examination.draw_part(settings.part)
    else:
        examination.run(out, copied=bool(settings.out), readme=settings.readme)


if __name__ == "__main__":
    cli.exit_with(main)
