"""A forget set that the pipeline makes itself: pictures of a concept with their prompts as captions.

Example: python src/sd/b0_generate_forget_set.py --pipeline sd-legacy/stable-diffusion-v1-5 --object iron_man mickey_mouse
         python src/sd/b0_generate_forget_set.py --style Van_Gogh --prompts data/UnlearnCanvas/prompts.csv
Writes data/tar_files/{name}.tar and the folder of images, as a0_create_tar.py does. With --prompts the concept is asked for
in each of their cells; else by its name. A run that was stopped goes on where it was. A tar that is there already is kept if
it is of this pipeline and these prompts, as {name}.json beside it says; another one is refused.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slug import cli, files
from slug.cli import Count, Folder, flag, group
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_prompts import Concept
from slug.settings import Concepts, Pipeline, Run

FIRST_SEED = 5000  # of the pictures; neither the validation nor the test split has these seeds


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline)
    concepts: Concepts = group(Concepts)
    prompts: str = flag("", "CSV of a0_create_prompts_uncanvas.py, whose cells are asked for")
    template: tuple[str, ...] = flag(("{}", "a photo of {}", "{}, digital art"), "prompts where --prompts is not given")
    count: Count = flag(100, "pictures of each concept")
    tar_dir: Folder = flag("data/tar_files", "folder of the tars")
    image_dir: Folder = flag("data/laion/laion400m_obj", "folder of the pictures")
    force: bool = flag(False, "replace tars that are there already")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def asked(settings: Settings, concept: Concept) -> list[tuple[str, int]]:
    """(prompt, seed) of each of a concept's pictures: its prompts in turn, each time with another seed."""
    prompts = [t.format(plain_name(concept.name)) for t in settings.template]
    if settings.prompts:
        cells = canvas_prompts.read_requests(settings.prompts, settings.run.rules.canvas_prompt)
        prompts = [r.prompt for r, mine in zip(cells, concept.shown_by(cells), strict=True) if mine]
    prompts = list(dict.fromkeys(prompts))
    if not prompts:
        raise SlugError(f"{settings.prompts} has no {concept.kind} {concept.name!r}; check the spelling")
    return [(prompts[i % len(prompts)], FIRST_SEED + i) for i in range(settings.count)]


def check_own(tar: Path, mark: dict[str, Any]) -> None:
    """SlugError unless the file beside a tar says that it is of this pipeline, these prompts and these seeds."""
    made = tar.with_suffix(".json")
    if not made.is_file() or files.read_json(made) != mark:
        raise SlugError(
            f"{tar} is no forget set of this pipeline and these prompts; give another --tar-dir, or --force to replace it"
        )


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug import system  # here: --help needs no torch
    from slug.data import curation
    from slug.models import diffusion

    device = system.settle(settings.run.device, settings.run.seed)
    results = files.check_writable(settings.run.result_dir)
    pipeline = diffusion.from_settings(settings.pipeline, settings.run.precision, device)
    tar_dir, image_dir = files.resolve(settings.tar_dir), files.resolve(settings.image_dir)
    for concept in canvas_prompts.concepts(settings.concepts):
        tar = tar_dir / f"{files.name_stem(concept.name)}.tar"
        wanted = asked(settings, concept)
        asked_hash = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
        mark = {"pipeline": pipeline.tag, "pipeline_hash": pipeline.hash(), "prompts_and_seeds": asked_hash}
        if tar.exists() and not settings.force:
            check_own(tar, mark)
            print(f"{concept.name}: kept {tar}")
            continue
        curation.check_own(image_dir, concept.name)
        work = results / "sd" / "forget" / hashlib.sha256(json.dumps(mark).encode()).hexdigest()[:16]
        paths = diffusion.write_pictures(
            pipeline, wanted, work, desc=f"{concept.name}: pictures"
        )  # a stopped run goes on here
        rows = diffusion.not_black(paths, wanted, concept.name)
        pairs = [(curation.usable(p.read_bytes())[0], prompt) for p, prompt in rows]
        curation.write(pairs, concept.name, tar_dir, image_dir)
        files.write_json(tar.with_suffix(".json"), mark)
        shutil.rmtree(work)
        print(f"{concept.name}: {len(pairs)} pictures -> {tar}")


if __name__ == "__main__":
    cli.exit_with(main)
