"""Draw the demo's forget names: before any unlearning, by a seed, from all concepts that the model knows.

Example: python src/demo/draw_names.py            writes data/emoji/forget_names.txt, committed and not changed after.
         python src/demo/draw_names.py --study    writes data/emoji/study_names.txt: names that the study of the claims adds
A concept is known if at least 70% of its pictures of the validation split are recognised; it must leave three drawings out.
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
from slug.settings import Model, Run

KNOWN = 0.70
COUNTS = {"identity": 5, "object": 3}
STUDY_COUNTS = {"identity": 5, "object": 2}
SETTLING = "Penguin Crab Princess Tiger dagger pear taxi sunrise".split()  # on which rules and margins were chosen


def known_names(evaluation, task, seed):
    """The names of a task that may be drawn, in the order of its classes."""
    pictures = evaluation.tasks[task].pictures
    select, known = validation_mask(pictures, seed), []
    for label, name in enumerate(pictures.names):
        mine = pictures.labels == label
        unseen = {g for g, u in zip(pictures.groups, (mine & ~pictures.seen).tolist(), strict=True) if u}
        rows = torch.nonzero(mine & select).flatten()
        if len(unseen) >= 3 and (evaluation.ranks(task, rows) < 1).float().mean() >= KNOWN:
            known.append(name)
    return known


@dataclass(frozen=True)
class Settings:
    """The flags."""

    run: Run = group(Run)
    model: Model = group(Model, model="local-dir:data/models/mini-clip")
    data_dir: str = flag("data/demo", "the built world")
    study: bool = flag(False, "names beside those of forget_names.txt, for the study")


def main():
    args = cli.parse(__doc__, Settings)
    seed, workers = args.run.seed, args.run.workers
    clip = models.from_settings(args.model, args.run.precision, system.settle(args.run.device, seed))
    root = files.existing(args.data_dir, "embedded world", "run python src/demo/build_world.py")
    identities = evaluation_sets.load_celeba(root / "celeba", clip.transform, workers=workers)
    objects = evaluation_sets.load_imagenet(root / "ImageNet" / "val", clip.transform, workers=workers)
    sets = [
        clip_tasks.TaskSet("identities", "identity", identities, zeroshot.IDENTITY_TEMPLATES),
        clip_tasks.TaskSet("objects", "object", objects, zeroshot.object_templates()),
    ]
    evaluation = clip_tasks.Evaluation(clip, sets)
    taken = {n.casefold() for n in [*build_questions.forget_names(), *SETTLING]} if args.study else set()
    counts = STUDY_COUNTS if args.study else COUNTS
    beside = f" beside forget_names.txt and {', '.join(SETTLING)}" if args.study else " before any unlearning"
    lines = [f"# Drawn by src/demo/draw_names.py{' --study' * args.study}{beside}; see there."]
    rng = np.random.default_rng(seed)
    for (kind, count), task in zip(counts.items(), ("identities", "objects"), strict=True):
        known = [n for n in known_names(evaluation, task, seed) if n.casefold() not in taken]
        drawn = sorted(rng.choice(known, count, replace=False).tolist())
        print(f"{kind}: {count} of {len(known)} known: {', '.join(drawn)}")
        lines += [f"# {kind}: {count} of {len(known)} known at {KNOWN:.0%}, seed {seed}"]
        lines += [n.replace(" ", "_") for n in drawn]
    out = emoji.DATA / ("study_names.txt" if args.study else "forget_names.txt")
    files.write_text(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    cli.exit_with(main)
