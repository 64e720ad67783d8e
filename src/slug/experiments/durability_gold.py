"""Durability beside models that never saw some of the names: the same tests on these models as they are (a7_lasting.py)."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from slug import cli, files, progress, schema
from slug.artifacts import records
from slug.core.edit import Edit
from slug.data.names import plain_name, read_aliases
from slug.errors import SlugError
from slug.evaluation.durability import Subject
from slug.experiments import durability, runner
from slug.experiments.durability import AGAIN, NOT_SETTINGS
from slug.experiments.setup import World
from slug.settings import Durability

REMEDY = "give --gold a folder that src/demo/train_clip.py --without has written"
TESTS = tuple(t for t in schema.TESTS if t != schema.MERGED)  # there is nothing to merge


def run(settings: Durability) -> list[str]:
    """Run what is not finished, on each model of --gold the names that it never saw; returns what durability.rows takes.

    A name that several models never saw is tested on the first one. A name that all of them saw is said.
    """
    left, found = list(settings.data.celeb_name), list[str]()
    for folder in dict.fromkeys(settings.gold):
        names = never_saw(folder, left)
        left = [n for n in left if n not in names]
        found += _on(settings, folder, names)
    if settings.gold and left:
        said = ", ".join(dict.fromkeys(map(plain_name, left)))
        progress.write(f"note: no model of --gold was trained without {said}: nothing stands beside their figures")
    return found


def never_saw(folder: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that a model never saw. SlugError where its folder does not say."""
    path = files.existing(f"{folder}/training.json", "record of a training", REMEDY)
    said = files.read_object(path).get("without", [])
    if not isinstance(said, list) or not all(isinstance(n, str) for n in said):
        raise SlugError(f"`without` in {path} is no list of names; {REMEDY}")
    without = {plain_name(n).casefold() for n in said}
    return [n for n in dict.fromkeys(names) if plain_name(n).casefold() in without]


def _on(settings: Durability, folder: str, names: Sequence[str]) -> Iterator[str]:
    """Run the tests of names on one model; yields the mark of each."""
    if not names:
        return
    model = replace(settings.model, model=f"local-dir:{files.resolve(folder)}", pretrained="", clip_model_id="")
    world = World(settings.run, model, settings.data)
    evaluation, parts = world.evaluation_now(cache_gb=0), durability.parts(settings)
    label = records.read_all(durability.records_folder(settings), durability.label(settings))[0]["model"]
    aliases = read_aliases(settings.aliases)
    left_out = durability.on_record(settings, label).names if world.protocol.all_names_left_out else []
    for name in progress.bar(names, desc=f"{folder}: names", unit="name"):
        plain = plain_name(name)
        tars = [world.gradients.tar(name), world.gradients.retain_tar]
        mark: dict[str, Any] = {"name": plain, "method": schema.GOLD, "versions": cli.versions()}
        mark["settings"] = cli.flat(settings, NOT_SETTINGS)
        mark["inputs"] = records.inputs_hash(world.model_hash, [], world.pictures, tars)
        mark |= {"left_out": left_out or [plain], "aliases": aliases.get(plain.casefold(), [])}
        made_with = json.dumps(mark, sort_keys=True)
        yield made_with
        todo = TESTS
        if parts.table.is_file() and not settings.force:
            done = runner.read_table(parts.table, AGAIN)
            todo = tuple(t for t in TESTS if t not in set(done[done["made_with"] == made_with]["test"]))
        if not todo:
            continue
        target, retain = evaluation.target(plain), world.retain_pairs(mark["left_out"])
        subject = Subject(evaluation, world.masks, target, world.pairs(name), retain, settings, mark["aliases"])
        common = {"name": plain, "kind": target.kind, "method": schema.GOLD, "model": label, "made_with": made_with}
        common |= {"seed": settings.run.seed, "relearn_lr": settings.relearn_lr}
        for test in todo:
            started = time.perf_counter()
            found = subject.test(test, Edit())
            beside = {"test": test, "seconds": time.perf_counter() - started}
            parts.write([common | beside | row for row in found], label, plain, schema.GOLD, test)
