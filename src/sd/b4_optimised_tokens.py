"""What brings back what b2_unlearn_sd.py made a pipeline forget? An optimised prompt token, other words, other weights.

Example: python src/sd/b4_optimised_tokens.py --style Van_Gogh --object Dogs --prompts data/UnlearnCanvas/prompts.csv
For the original pipeline and for every record of the concepts, the embedding of "*" is trained on pictures that the original
makes of the concept; then the test split's prompts are drawn with "*" in the concept's place. The share of pictures that
the classifier takes for the concept is given beside the share for its name: tokens.csv and tokens.md in results/uncanvas/,
or --out. There, too, back.csv and back.md: the same share for other wordings of the prompt, for --words (synonyms, and words
of other languages), without the low-rank part of the edit, merged with the original, and after training on retained pictures
alone, with --back-seeds pictures of each cell. What was counted is kept in results/uncanvas/back/, concept by concept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Count, Folder, Positive, Whole, flag, group
from slug.settings import Concepts, Judging, Pipeline, Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline)
    concepts: Concepts = group(Concepts)
    judging: Judging = group(Judging)
    training_steps: Count = flag(200, "optimiser steps for each token")
    rate: Positive = flag(0.01, "learning rate of a token")
    back_seeds: Whole = flag(2, "pictures of each cell for every other attempt; 0: tokens only")
    words: str = flag("", "CSV of other words for the concepts, with the columns name, alias, language")
    retain_steps: Whole = flag(30, "optimiser steps on retained pictures; 0: none")
    retain_rate: Positive = flag(1e-5, "learning rate on retained pictures, of all weights")
    part: tuple[Count, Count] = flag(
        (1, 1), "count only the I-th of N parts of the concepts, and write no table", nargs=2, metavar=("I", "N")
    )
    out: Folder = flag("", "folder to write instead of {result-dir}/uncanvas")
    readme: str = flag("", "Markdown file whose tokens block is filled")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    import pandas as pd  # here: --help needs neither pandas nor torch

    from slug.evaluation import canvas_prompts
    from slug.experiments import pipelines_back, pipelines_tokens
    from slug.experiments.pipeline_setup import Canvas
    from slug.reports import markdown, pipelines, recovered

    words = pipelines_back.read_words(settings.words)
    canvas = Canvas(settings.run, settings.pipeline, settings.judging)
    out, records = canvas.out(settings.out), canvas.records()
    attacks = pipelines_back.Attacks(
        canvas, records, words, settings.back_seeds, settings.retain_steps, settings.retain_rate
    )
    rows, back = [], []
    asked = pipelines_tokens.concepts(canvas, records, canvas_prompts.concepts(settings.concepts))
    for concept in cli.part_of(settings.part, asked):
        rows += pipelines_tokens.rows(canvas, concept, records, settings.training_steps, settings.rate)
        back += attacks.rows(concept) if settings.back_seeds else []
    if settings.part != (1, 1):
        return
    frame = pd.DataFrame(rows)
    files.write_text(out / "tokens.csv", frame.to_csv(index=False, lineterminator="\n"))
    markdown.publish(out / "tokens.md", pipelines.tokens(frame), "tokens", settings.readme)
    if back:
        whole = pd.DataFrame(back + pipelines_back.token_rows(rows))
        files.write_text(out / "back.csv", whole.to_csv(index=False, lineterminator="\n"))
        markdown.publish(out / "back.md", recovered.report(whole), "back", settings.readme)


if __name__ == "__main__":
    cli.exit_with(main)
