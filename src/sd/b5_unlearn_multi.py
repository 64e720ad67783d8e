"""Forget several styles and objects of a pipeline at once, by the edits that b2_unlearn_sd.py found for each.

Example: python src/sd/b5_unlearn_multi.py --style Van_Gogh Picasso --object Dogs Cats --prompts ...
Forgets the first 2, 3, ... styles, the first 2, 3, ... objects, and all of both. --ways: `sum` adds the edits up; `joint`
solves one system for each matrix that they move, so that none of them moves what another or no concept reads; `assigned`
takes candidates of the searches on layers that no two concepts share. --rivals forget a group at once. Every setting is
chosen on the validation split. Reports on the test split UA of each concept, and IRA and CRA of the prompts that show none
of them, beside the original. Needs a record of each concept. Writes multi.csv and multi.md to results/uncanvas/, or --out,
and what was chosen to results/sd/together/, with a delta of each concept's part, which can be reverted alone. Resumable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Folder, flag, group
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.schema import WAYS
from slug.settings import Concepts, Judging, Pipeline, Run


def _rivals() -> list[str]:
    """The baselines of a pipeline."""
    from slug import methods

    return methods.names(methods.PIPELINE, searched=False)


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline)
    concepts: Concepts = group(Concepts)
    judging: Judging = group(Judging)
    method: str = flag("slug", "whose edits are put together, as their records name it")
    ways: tuple[str, ...] = flag(("sum",), "how they are put together", nargs="+", choices=WAYS)
    rivals: tuple[str, ...] = flag((), "baselines that forget a group at once", nargs="*", choices=_rivals)
    out: Folder = flag("", "folder to write instead of {result-dir}/uncanvas")
    readme: str = flag("", "Markdown file whose uncanvas-multi block is filled")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    concepts = canvas_prompts.concepts(settings.concepts)
    if len(concepts) < 2:
        raise SlugError("give two styles or objects, or more; for one there is b2_unlearn_sd.py")
    import pandas as pd  # here: --help needs neither pandas nor torch

    from slug.experiments import pipelines_several
    from slug.experiments.pipeline_setup import Canvas
    from slug.reports import markdown, pipelines

    canvas = Canvas(settings.run, settings.pipeline, settings.judging)
    out = canvas.out(settings.out)
    rows = pipelines_several.evaluate(canvas, concepts, settings.method, (*settings.ways, *settings.rivals))
    frame = pd.DataFrame(rows).assign(protocol=settings.run.protocol)
    files.write_text(out / "multi.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    markdown.publish(out / "multi.md", pipelines.together(frame, settings.method), "uncanvas-multi", settings.readme)


if __name__ == "__main__":
    cli.exit_with(main)
