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
from slug.evaluation.durability import Subject
from slug.experiments import durability, runner
from slug.experiments.durability import AGAIN, NOT_SETTINGS
from slug.experiments.setup import World
from slug.settings import Durability

REMEDY = "give --gold a folder that src/demo/train_clip.py --without has written"
TESTS = tuple(t for t in schema.TESTS if t != schema.MERGED)  # there is nothing to merge


def run(settings: Durability) -> list[str]:
    """Run what is not finished, on each model of --gold the names that it never saw; returns what durability.rows takes."""
    return [mark for folder in settings.gold for mark in _on(settings, folder)]


def never_saw(folder: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that a model never saw. SlugError where its folder does not say."""
    said = files.read_object(files.existing(f"{folder}/training.json", "record of a training", REMEDY))
    without = {plain_name(n).casefold() for n in said.get("without", [])}
    return [n for n in dict.fromkeys(names) if plain_name(n).casefold() in without]


def _on(settings: Durability, folder: str) -> Iterator[str]:
    """Run the tests on one model; yields the marks of its names."""
    names = never_saw(folder, settings.data.celeb_name)
    if not names:
        return
    model = replace(settings.model, model=f"local-dir:{files.resolve(folder)}", pretrained="", clip_model_id="")
    world = World(settings.run, model, settings.data)
    evaluation, parts = world.evaluation_now(cache_gb=0), durability.parts(settings)
    label = records.read_all(durability.records_folder(settings), durability.label(settings))[0]["model"]
    left_out = durability.on_record(settings, label).names if world.protocol.all_names_left_out else []
    for name in progress.bar(names, desc=f"{folder}: names", unit="name"):
        plain = plain_name(name)
        tars = [world.gradients.tar(name), world.gradients.retain_tar]
        mark: dict[str, Any] = {"name": plain, "method": schema.GOLD, "versions": cli.versions()}
        mark["settings"] = cli.flat(settings, NOT_SETTINGS)
        mark["inputs"] = records.inputs_hash(world.model_hash, [], world.pictures, tars)
        made_with = json.dumps(mark, sort_keys=True)
        yield made_with
        todo = TESTS
        if parts.table.is_file() and not settings.force:
            done = runner.read_table(parts.table, AGAIN)
            todo = tuple(t for t in TESTS if t not in set(done[done["made_with"] == made_with]["test"]))
        if not todo:
            continue
        aliases = read_aliases(settings.aliases).get(plain.casefold(), [])
        target, retain = evaluation.target(plain), world.retain_pairs(left_out or [plain])
        subject = Subject(evaluation, world.masks, target, world.pairs(name), retain, settings, aliases)
        common = {"name": plain, "kind": target.kind, "method": schema.GOLD, "model": label, "made_with": made_with}
        common |= {"seed": settings.run.seed, "relearn_lr": settings.relearn_lr}
        for test in todo:
            started = time.perf_counter()
            found = subject.test(test, Edit())
            beside = {"test": test, "seconds": time.perf_counter() - started}
            parts.write([common | beside | row for row in found], label, plain, schema.GOLD, test)
