"""Write the prompts of the UnlearnCanvas protocol as a CSV: every style and object, with seeds of its own for each split.

Example: python src/clip/a0_create_prompts_uncanvas.py
         python src/clip/a0_create_prompts_uncanvas.py --canvas data/demo/UnlearnCanvas/data --style Noto --object bell key
         python src/clip/a0_create_prompts_uncanvas.py --names iron_man mickey_mouse "a dog" --out data/sd_prompts.csv
Takes styles and objects from the folder names of --canvas, or names without a style from --names. Writes rows of
split,style,object,seed,prompt to --out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Seed, flag, group
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.settings import CANVAS, Concepts, Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    canvas: str = flag(f"{CANVAS}/data", "folder of <Style>/<Object>/<n>.jpg")
    concepts: Concepts = group(Concepts)
    names: tuple[str, ...] = flag((), "ask for these names, without styles; no folder is read", parse=files.checked_name)
    leave_out: str = flag("", 'JSON with a list "left_out" of prompts that the pipeline never learned')
    classifiers: str = flag("", "folder of both classifiers; what they do not know is refused")
    test_seeds: tuple[Seed, ...] = flag(
        canvas_prompts.TEST_SEEDS, "seeds of the test split, for the first cell", aliases=("--report-seeds",)
    )
    validation_seeds: tuple[Seed, ...] = flag(
        canvas_prompts.VALIDATION_SEEDS, "seeds of the validation split, for the first cell", aliases=("--select-seeds",)
    )
    shared_seeds: bool = flag(False, "use the same seeds in every cell, as published")
    out: str = flag(f"{CANVAS}/prompts.csv", "file to write")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    styles, objects = [""], list(settings.names)
    if not objects:
        folder = files.existing(settings.canvas, "UnlearnCanvas", "see data/README.md, Styles")
        styles, objects = canvas_prompts.grid(folder)
        if not (settings.concepts.style or settings.run.rules.canvas_photographs):
            styles = tuple(s for s in styles if s != canvas_prompts.PHOTOGRAPHS)
        styles = canvas_prompts.among(settings.concepts.style, styles, "style")
        objects = canvas_prompts.among(settings.concepts.object, objects, "object")
    seeds = {"test": settings.test_seeds, "validation": settings.validation_seeds, "shared": settings.shared_seeds}
    found = canvas_prompts.requests(styles, objects, **seeds)
    if settings.leave_out:
        skipped = files.read_json(files.existing(settings.leave_out, "list of prompts", "give --leave-out"))
        if not isinstance(skipped, dict) or not isinstance(skipped.get("left_out"), list):
            raise SlugError(f"{settings.leave_out} has no list left_out of prompts; give another --leave-out")
        found = [r for r in found if r.prompt not in skipped["left_out"]]
    if settings.classifiers:  # refused now rather than after the gradients
        from slug.data import canvas

        folder = files.existing(settings.classifiers, "classifiers", "give --classifiers")
        canvas_prompts.check_known(found, canvas.classifier_settings(folder)["labels"])
    found = [r._replace(wording=settings.run.rules.canvas_prompt) for r in found]
    canvas_prompts.write_requests(files.resolve(settings.out), found)
    cells = len({r.prompt for r in found})
    print(f"{len(styles)} styles x {len(objects)} objects: {cells} cells, {len(found)} pictures -> {settings.out}")


if __name__ == "__main__":
    cli.exit_with(main)
