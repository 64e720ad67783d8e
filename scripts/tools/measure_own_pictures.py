#!/usr/bin/env python
"""How good is an edit made from 40 pictures? Each of the demo's names is forgotten as a user with a folder would do it
(slug.forget: no CelebA folder, no ImageNet folder), and the edit is judged by the demo's test split beside the demo's own.

Example: python scripts/tools/measure_own_pictures.py               after scripts/run_demo.sh
The pictures are the first --count, in an order drawn by --seed, of the name's forget set, without their captions. They are
of drawings that the model saw in training; the test split also shows drawings that nobody saw. The two edits are compared
picture by picture. Writes --out: table.csv and README.md.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import slug
from slug import cli, edits, files, progress, schema
from slug.cli import flag, group
from slug.data.names import plain_name
from slug.data.pairs import read_tar
from slug.edits import Edit
from slug.evaluation import statistics
from slug.experiments.setup import World
from slug.reports import markdown
from slug.settings import Data, Following, Model, Run

HEADS = (
    "name | layer: own pictures | layer: demo | step: own, demo | FA@1 before, % | FA@1, %: own, demo | test pictures | "
    "other identities, own - demo in points (95%) | other objects, own - demo in points (95%)"
)


@dataclass(frozen=True)
class Settings(Following):
    """The flags."""

    run: Run = group(Run)
    model: Model = group(Model, model="local-dir:data/models/mini-clip")
    data: Data = group(
        Data,
        tar_dir="data/demo/tar_files",
        train_data="data/demo/laion/laion400m/00000.tar",
        val_data="data/demo/celeba",
        imagenet_val="data/demo/ImageNet/val",
        imagenet_share=1.0,
    )
    count: int = flag(40, "pictures of a name")
    records: str = flag("results/clip", "folder with the demo's edits")
    out: str = flag("results/demo/own", "folder to write")


def pictures(world: World, name: str, count: int, folder: Path) -> str:
    """A folder with some pictures of a name's forget set, as a user would have it."""
    samples = list(read_tar(world.gradients.tar(name)))
    for i in np.random.default_rng(world.run.seed).permutation(len(samples))[:count]:
        key, image, _ = samples[i]
        (folder / f"{key}.jpg").write_bytes(image)
    return str(folder)


def ranks(world: World, name: str, edit: Edit | None) -> dict[str, Any]:
    """{"forget" or task: ranks of the test split's pictures} with an edit, or with none."""
    evaluator = world.evaluators(name, None, splits=["test"])["test"]
    if edit is None:
        return evaluator.ranks()
    with world.evaluation.carrying(edit.parts[0].on(world.clip)):
        return evaluator.ranks()


def row(world: World, name: str, own: Edit, demo: Edit) -> dict[str, Any]:
    """The figures of one name."""
    before, mine, theirs = (ranks(world, name, e) for e in (None, own, demo))
    found: dict[str, Any] = {"name": plain_name(name), "layer": own.layer, "demo_layer": demo.layer}
    found |= {"step": own.step, "demo_step": demo.step, "n_forget": len(before["forget"])}
    for column, part in (("original_acc1", before), ("forget_acc1", mine), ("demo_forget_acc1", theirs)):
        found[column] = (part["forget"] < 1).float().mean().item()
    for task in schema.TASKS:
        a, b = ((part[task] < 1).float().tolist() for part in (theirs, mine))
        groups = world.evaluation.tasks[task].pictures.groups
        rows = world.evaluators(name, None, splits=["test"])["test"].retain_rows[task]
        difference = statistics.paired_difference(a, b, [groups[i] for i in rows.tolist()], seed=world.run.seed)
        found |= dict(zip((f"{task}_change", f"{task}_change_low", f"{task}_change_high"), difference, strict=True))
    return found


def report(frame: pd.DataFrame, count: int) -> str:
    """Markdown of the table."""
    rows = []
    for r in frame.to_dict("records"):
        tasks = [
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * r[f"{t}_change{e}"] for e in ("", "_low", "_high")))
            for t in schema.TASKS
        ]
        layers = [f"`{schema.layer_label(r[k])}`" for k in ("layer", "demo_layer")]
        steps, shares = f"{r['step']:.3g}, {r['demo_step']:.3g}", (100 * r[c] for c in ("forget_acc1", "demo_forget_acc1"))
        before = f"{100 * r['original_acc1']:.1f}"
        rows.append([r["name"], *layers, steps, before, "{:.1f}, {:.1f}".format(*shares), r["n_forget"], *tasks])
    met = int((frame["forget_acc1"] <= 0.02).sum())
    said = (
        "Model and data are mini-CLIP on EmojiCanvas, as in [the demo](../README.md). Two edits of each name are compared. "
        f"*Own pictures*: `slug.forget` made the edit from {count} pictures of the name's forget set, without captions and "
        "without any labelled set. *Demo*: the edit was made from the whole forget set and chosen on the demo's validation "
        f"split. Both are judged by the demo's test split. By the edits of own pictures, {met} of {len(frame)} names have "
        "at most 2% of their test pictures still recognised (FA@1, the forget accuracy). These edits saw only drawings that "
        "the model saw in training; the test split also shows drawings that it never saw. Differences are paired by "
        "picture; their intervals resample source images."
    )
    return f"# Forgetting from {count} pictures\n\n{said}\n\n{markdown.table(HEADS, rows)}\n"


def main() -> None:
    settings = cli.parse(__doc__, Settings)
    world = World(settings.run, settings.model, settings.data)
    out, rows = files.check_writable(settings.out), []
    for name in world.gradients.names:
        delta = files.resolve(settings.records) / f"{world.clip.label}-{name}.delta.safetensors"
        demo = edits.load(str(files.existing(str(delta), "edit of the demo", "run scripts/run_demo.sh")))
        with tempfile.TemporaryDirectory() as folder:
            images = pictures(world, name, settings.count, Path(folder))
            own = slug.forget(world.clip, plain_name(name), images=images, retain=settings.data.train_data)
        rows.append(row(world, name, own, demo))
        progress.write(f"{name}: {100 * rows[-1]['forget_acc1']:.1f}% of the test pictures are still recognised")
    frame = pd.DataFrame(rows)
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    files.write_text(out / "README.md", report(frame, settings.count))
    print(out / "README.md")


if __name__ == "__main__":
    cli.exit_with(main)
