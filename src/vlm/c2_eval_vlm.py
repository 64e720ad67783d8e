"""What a LLaVA answers on the test split with the edits of c1_unlearn_vlm.py: names, everything else, transcripts.

Example: python src/vlm/c2_eval_vlm.py --vlm data/demo/models/mini-llava --clip-model-id data/demo/models/mini-clip-hf \\
             --questions data/demo/vlm/questions.jsonl
         python src/vlm/c2_eval_vlm.py --utility data/MME data/gqa/testdev_balanced_questions.json data/mmbench_dev_en.tsv
         python src/vlm/c2_eval_vlm.py ... --factors 0.5 0.7 1.4 2    (how far each name's step would have to go)
An answer with a name is right if the name occurs in it as whole words; any other answer is marked by its first word or its
whole text. All is also scored as published: the right answer is contained in the first 16 tokens. Source images that the
model's training did not contain have columns of their own, and so have all images together. Writes under results/vlm/:
table.csv, report.md, for each name a transcript {model}-{name}.jsonl of all questions with the answers before and after, and
a sheet of images with answers. Where the questions hold probes (data/README.md) also probes.csv. With --rows also rows.csv,
the figures on your own questions. With --factors also curve.csv, a row for each name and multiple of its step, and its plot:
what more forgetting costs.
"""

from dataclasses import dataclass

from slug import cli
from slug.cli import Folder, Positive, flag, group
from slug.data.settings import Missing
from slug.settings import Assistant, Run


@dataclass(frozen=True)
class Settings:
    """The flags."""

    run: Run = group(Run)
    assistant: Assistant = group(Assistant)
    questions: str = flag("data/vlm/questions.jsonl", "questions of both splits")
    factors: tuple[Positive, ...] = flag((), "multiples of each step that are scored besides 0 and 1", nargs="*")
    utility: tuple[str, ...] = flag((), "public sets (MME, GQA, MMBench) that are asked, too", nargs="*")
    rows: tuple[str, ...] = flag(
        (), "folders of your own questions: images, and CSV or JSONL files of image, question, answer", nargs="*"
    )
    missing: Missing = group(Missing)
    out: Folder = flag("", "folder that gets a copy of everything that is written")
    readme: str = flag("", "Markdown file whose vlm block is filled")


def parse_args(argv=None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv=None):
    s = parse_args(argv)
    from slug.experiments import assistants_report  # here: --help needs no torch

    how = {"out": s.out, "readme": s.readme, "own": s.rows, "allow_missing": s.missing.allow_missing}
    assistants_report.evaluate(s.run, s.assistant, s.questions, s.utility, s.factors, **how)


if __name__ == "__main__":
    cli.exit_with(main)
