"""Does an optimised prompt token (textual inversion) bring back what b2_unlearn_sd.py made a pipeline forget?

Example: python src/sd/b4_optimised_tokens.py --style Van_Gogh --object Dogs --prompts data/UnlearnCanvas/prompts.csv
For the original pipeline and for every record of the concepts, the embedding of "*" is trained on pictures that the original
makes of the concept; then the test split's prompts are drawn with "*" in the concept's place. The share of pictures that
the classifier takes for the concept is given beside the share for its name. Writes tokens.csv and tokens.md to
results/uncanvas/, or --out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Count, Folder, Positive, flag, group
from slug.settings import Concepts, Judging, Pipeline, Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline)
    concepts: Concepts = group(Concepts)
    judging: Judging = group(Judging)
    training_steps: Count = flag(200, "optimiser steps for each token")
    rate: Positive = flag(0.01, "learning rate of a token")
    out: Folder = flag("", "folder to write instead of {result-dir}/uncanvas")
    readme: str = flag("", "Markdown file whose tokens block is filled")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    import pandas as pd  # here: --help needs neither pandas nor torch

    from slug.evaluation import canvas_prompts
    from slug.experiments import pipelines_tokens
    from slug.experiments.pipeline_setup import Canvas
    from slug.reports import markdown, pipelines

    canvas = Canvas(settings.run, settings.pipeline, settings.judging)
    out, records = canvas.out(settings.out), canvas.records()
    rows = []
    for concept in pipelines_tokens.concepts(canvas, records, canvas_prompts.concepts(settings.concepts)):
        rows += pipelines_tokens.rows(canvas, concept, records, settings.training_steps, settings.rate)
    frame = pd.DataFrame(rows)
    files.write_text(out / "tokens.csv", frame.to_csv(index=False, lineterminator="\n"))
    markdown.publish(out / "tokens.md", pipelines.tokens(frame), "tokens", settings.readme)


if __name__ == "__main__":
    cli.exit_with(main)
