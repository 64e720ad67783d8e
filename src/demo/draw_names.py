"""Draw the demo's forget names at random from the concepts that mini-CLIP knows. Done once, before any unlearning.

Example: python src/demo/draw_names.py            writes data/emoji/forget_names.txt
         python src/demo/draw_names.py --study    writes data/emoji/study_names.txt: further names for the study
         python src/demo/draw_names.py --test     writes data/emoji/test_names.txt: all names that nothing used before, and
                                                  gold_{A,B}_names.txt: the names that a gold model never sees

A concept is known if at least 70% of its pictures in the validation split are recognised. It must have three drawings that
training never saw. The committed lists do not change any more.
"""

from dataclasses import dataclass

import numpy as np
import torch

from demo import emoji
from slug import cli, files, models, system
from slug.cli import flag, group
from slug.data import evaluation_sets
from slug.data.names import plain_name
from slug.data.splits import validation_mask
from slug.errors import SlugError
from slug.evaluation import clip_tasks, zeroshot
from slug.settings import Following, Model, Run

KNOWN = 0.70
COUNTS = {"identity": 5, "object": 3}
STUDY_COUNTS = {"identity": 5, "object": 2}
KINDS = {"identity": "identities", "object": "objects"}  # and the task that knows them
DEVELOPMENT = "Penguin Crab Princess Tiger dagger pear taxi sunrise".split()  # rules and margins were chosen on these


def known_names(evaluation, task, seed):
    """The names of a task that can be drawn, in the order of its classes."""
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
class Settings(Following):
    run: Run = group(Run)
    model: Model = group(Model, model="local-dir:data/models/mini-clip")
    data_dir: str = flag("data/demo", "folder of the embedded world")
    study: bool = flag(False, "draw names for the study, other than those of forget_names.txt")
    test: bool = flag(False, "list all names that nothing used before, and draw those that the gold models never see")

    def __post_init__(self):
        if self.study and self.test:
            raise SlugError("give --study or --test, not both")


def listed(which):
    """The names of data/emoji/{which}_names.txt, spelled as in concepts.csv but for case."""
    lines = files.read_text(emoji.DATA / f"{which}_names.txt").splitlines()
    return [plain_name(line) for line in lines if line.strip() and not line.startswith("#")]


def gold_groups(fresh, seed):
    """Two groups of names that one gold model each never sees: eight development names and eight test names.

    Args:
        fresh: the test names.
    """
    drawn = np.random.default_rng([seed, 1]).permutation(fresh)[:16].tolist()
    return {"A": [*listed("forget"), *sorted(drawn[:8])], "B": [*listed("study"), DEVELOPMENT[0], *sorted(drawn[8:])]}


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
    rng = np.random.default_rng(settings.run.seed)
    known = {kind: known_names(evaluation, task, settings.run.seed) for kind, task in KINDS.items()}
    if settings.test:
        taken, which, beside = (
            {*listed("forget"), *listed("study"), *DEVELOPMENT},
            "test",
            " --test before any of them was used",
        )
    elif settings.study:
        taken, which = {*listed("forget"), *DEVELOPMENT}, "study"
        beside = f" --study beside forget_names.txt and {', '.join(DEVELOPMENT)}"
    else:
        taken, which, beside = set(), "forget", " before any unlearning"
    taken = {name.casefold() for name in taken}
    lines, drawn = [f"# Drawn by src/demo/draw_names.py{beside}; see there."], []
    for kind, names in known.items():
        fresh = [n for n in names if n.casefold() not in taken]
        count = len(fresh) if settings.test else (STUDY_COUNTS if settings.study else COUNTS)[kind]
        chosen = sorted(rng.choice(fresh, count, replace=False).tolist())
        print(f"{kind}: {count} of {len(fresh)} known: {', '.join(chosen)}")
        lines += [f"# {kind}: {count} of {len(fresh)} known at {KNOWN:.0%}, seed {settings.run.seed}"]
        lines += [n.replace(" ", "_") for n in chosen]
        drawn += chosen
    files.write_text(emoji.DATA / f"{which}_names.txt", "\n".join(lines) + "\n")
    if settings.test:
        for group_name, names in gold_groups(drawn, settings.run.seed).items():
            text = f"# Names that gold model {group_name} never sees; drawn by src/demo/draw_names.py --test; see there.\n"
            text += "".join(f"{n.replace(' ', '_')}\n" for n in names)
            files.write_text(emoji.DATA / f"gold_{group_name}_names.txt", text)


if __name__ == "__main__":
    cli.exit_with(main)
