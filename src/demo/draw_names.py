"""Draw the demo's forget names at random from the concepts that mini-CLIP knows. Done once, before any unlearning.

Example: python src/demo/draw_names.py            writes data/emoji/forget_names.txt
         python src/demo/draw_names.py --study    writes data/emoji/study_names.txt: further names for the study

A concept is known if at least 70% of its pictures in the validation split are recognised. It must have three drawings that
training never saw. The committed lists do not change any more.
"""

from dataclasses import dataclass

import numpy as np
import torch

from demo import build_questions, emoji
from slug import cli, files, models, system
from slug.cli import flag, group
from slug.data import evaluation_sets
from slug.data.splits import validation_mask
from slug.evaluation import clip_tasks, zeroshot
from slug.settings import Following, Model, Run

KNOWN = 0.70
COUNTS = {"identity": 5, "object": 3}
STUDY_COUNTS = {"identity": 5, "object": 2}
DEVELOPMENT = "Penguin Crab Princess Tiger dagger pear taxi sunrise".split()  # rules and margins were chosen on these


def known_names(evaluation, task, seed):
    """The names of a task that can be drawn, in the order of its classes."""
    pictures = evaluation.tasks[task].pictures
    select, known = validation_mask(pictures, seed), []
    for label, name in enumerate(pictures.names):
        mine = pictures.labels == label
        unseen = {g for g, u in zip(pictures.groups, (mine & ~pictures.seen).tolist(), strict=True) if u}
        rows = torch.nonzero(mine & select).flatten()
        if len(unseen) >= 3 and (evaluation.ranks(task, rows, None) < 1).float().mean() >= KNOWN:
            known.append(name)
    return known


@dataclass(frozen=True)
class Settings(Following):
    run: Run = group(Run)
    model: Model = group(Model, model="local-dir:data/models/mini-clip")
    data_dir: str = flag("data/demo", "folder of the embedded world")
    study: bool = flag(False, "draw names for the study, other than those of forget_names.txt")


def main():
    settings = cli.parse(__doc__, Settings)
    device = system.settle(settings.run.device, settings.run.seed)
    clip = models.from_settings(settings.model, settings.run.precision, device)
    root = files.existing(settings.data_dir, "embedded world", "run python src/demo/build_world.py")
    identities = evaluation_sets.load_celeba(root / "celeba", clip.transform, workers=settings.run.workers)
    objects = evaluation_sets.load_imagenet(root / "ImageNet" / "val", clip.transform, workers=settings.run.workers)
    sets = [
        clip_tasks.TaskSet("identities", "identity", identities, zeroshot.IDENTITY_TEMPLATES),
        clip_tasks.TaskSet("objects", "object", objects, zeroshot.object_templates()),
    ]
    evaluation = clip_tasks.Evaluation(clip, sets)
    taken = {n.casefold() for n in [*build_questions.forget_names(), *DEVELOPMENT]} if settings.study else set()
    counts = STUDY_COUNTS if settings.study else COUNTS
    beside = f" beside forget_names.txt and {', '.join(DEVELOPMENT)}" if settings.study else " before any unlearning"
    lines = [f"# Drawn by src/demo/draw_names.py{' --study' * settings.study}{beside}; see there."]
    rng = np.random.default_rng(settings.run.seed)
    for (kind, count), task in zip(counts.items(), ("identities", "objects"), strict=True):
        known = [n for n in known_names(evaluation, task, settings.run.seed) if n.casefold() not in taken]
        drawn = sorted(rng.choice(known, count, replace=False).tolist())
        print(f"{kind}: {count} of {len(known)} known: {', '.join(drawn)}")
        lines += [f"# {kind}: {count} of {len(known)} known at {KNOWN:.0%}, seed {settings.run.seed}"]
        lines += [n.replace(" ", "_") for n in drawn]
    out = emoji.DATA / ("study_names.txt" if settings.study else "forget_names.txt")
    files.write_text(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    cli.exit_with(main)
