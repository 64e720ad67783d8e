"""SLUG on one name after the other: search, choose, report on the test split, and write everything (a2_unlearn_slug.py)."""

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slug import cli, files, system
from slug.artifacts import deltas, records
from slug.artifacts.gradient_files import Loaded
from slug.core import layers, search, slug, variants
from slug.core.edit import Edit
from slug.core.layers import Layer
from slug.core.search import Found, Plan, Schedule
from slug.core.selection import Candidate
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import outcome
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.experiments.setup import World
from slug.reports import clip_report, plots
from slug.settings import MAX_FORGET, SIGMAS, Forget

# These change no result.
NOT_SETTINGS = ("force", "celeb_name", "device", "workers", "result_dir", "cache_gb", "lookahead")


def run(settings: Forget) -> None:
    """Forget every name of the settings; valid records are kept."""
    world = World(settings.run, settings.model, settings.data)
    system.reset_peak_memory(world.device)
    variant, folder = variants.get(settings.unlearn_method), files.resolve(settings.run.result_dir) / "clip"
    loaded = {name: world.gradients.load(name, variant) for name in world.gradients.names}
    evaluation = None
    for name, found in loaded.items():
        mark = {
            "settings": cli.flat(settings, NOT_SETTINGS),
            "inputs": records.inputs_hash(world.model_hash, (found.forget, found.retain), world.pictures),
            "rule": {"max_forget": MAX_FORGET, "sigmas": SIGMAS, "close": search.CLOSE},
            "versions": cli.versions(),
        }
        path = folder / records.file_name(world.clip.label, name, ".json")
        record = None if settings.force else records.valid(path, mark)
        if record is None:
            evaluation = evaluation or world.evaluation_now(plain=settings.search.plain)
            record = Name(settings, world, evaluation, name, found).forget(folder, mark)
        elif world.rank == 0:
            print(f"{name}: valid, kept: {path}")
        if world.rank == 0:
            print(records.one_line(record))
    if world.rank == 0:
        records.write_important_layers(folder, world.clip.label)


def known_layer(ranked: list[Layer], name: str) -> Layer:
    """The layer of a name. SlugError for one that SLUG may not edit."""
    for layer in ranked:
        if layer.name == name:
            return layer
    raise SlugError(f"SLUG may not edit a layer {name!r}; it may edit e.g. {ranked[0].name}, {ranked[-1].name}")


class Name:
    """One name: its search and everything that is written of it."""

    def __init__(self, settings: Forget, world: World, evaluation: Any, name: str, gradients: Loaded) -> None:
        self.settings, self.world, self.evaluation, self.name, self.gradients = settings, world, evaluation, name, gradients
        self.method = settings.unlearn_method
        clip, pairs = world.clip, world.pairs(name)
        how: dict[str, Any] = {"trace": settings.data.trace, "rule": settings.search.search_rule}
        self.evaluators = world.evaluators(name, pairs, evaluation=evaluation, **how)
        self.ranked = layers.figures(clip, gradients.forget, gradients.retain)
        self.fronts = layers.fronts(self.ranked)

    def search(self) -> tuple[Found, float]:
        """(what the search found, its seconds without what plots alone need)."""
        wanted, world, forget = self.settings.search, self.world, self.gradients.forget
        evaluator: ClipEvaluator = self.evaluators["validation"]
        _ = evaluator.start  # before the clock starts
        front = [layer for part in layers.fronts(self.ranked, wanted.fronts).values() for layer in part]
        if wanted.layer:
            front = [known_layer(self.ranked, wanted.layer)]
        started = time.perf_counter()
        if wanted.step:
            edit = Edit.along(world.clip, wanted.layer, forget, wanted.step)
            best = evaluator.score(edit, log_all=True)
            found = Found({wanted.layer: [best]}, best)
        else:
            lookahead = 1 if wanted.plain else wanted.lookahead or (3 if world.device.type == "cuda" else 1)
            schedule = Schedule(rule=wanted.search_rule, lookahead=lookahead, evaluations=wanted.evaluations)
            plan = Plan(choose=wanted.choose, log_all=wanted.log_all or wanted.plain, schedule=schedule)
            bar = tqdm(front, desc=f"{self.name}: layers", unit="layer", disable=world.rank > 0)
            found = slug.over_layers(world.clip, evaluator, bar, forget, plan)
        return found, time.perf_counter() - started - sum(c.trace_s for c in found.candidates)

    def forget(self, folder: Path, mark: dict[str, Any]) -> dict[str, Any]:
        """Search, choose, report, write; returns the record, which is empty in all processes but the first."""
        found, seconds = self.search()
        best = found.winner
        assert best is not None  # every candidate of a CLIP may be kept
        seed, test = self.settings.run.seed, self.evaluators["test"]
        splits = outcome.on_splits(self.evaluators, best.edit, self.method, seed)
        seen = [self._views(test, seed)]
        with self.evaluation.carrying(best.edit):
            seen.append(self._views(test, seed))
        if self.world.rank:
            return {}
        delta = folder / records.file_name(self.world.clip.label, self.name, ".delta.safetensors")
        about = splits["test"][self.method] | {"split": "test", "method": self.method}
        clip = self.world.clip
        deltas.save(
            delta, clip, best.edit.changes, name=plain_name(self.name), layer=best.layer, step=best.step, metrics=about
        )
        self._plot(folder, best, seen)
        self._write_steps(folder, found)
        record = self._record(found, best, splits, seconds, delta) | mark
        clip_report.draw_steps(record, folder)
        files.write_json(folder / records.file_name(clip.label, self.name, ".json"), record)
        return record

    def _views(self, test: ClipEvaluator, seed: int) -> tuple[Any, Any]:
        """What plots show of the model as it is: cosines of names, and pictures with the names they are taken for."""
        similar = outcome.similarity(self.evaluation, [test.target], test.masks, seed=seed)
        return similar, outcome.shown(self.evaluation, test.target, test.masks, seed=seed)

    def _plot(self, folder: Path, best: Candidate, seen: list[tuple[Any, Any]]) -> None:
        label, name = self.world.clip.label, plain_name(self.name)

        def stem(part: str) -> Path:
            return folder / records.file_name(label, self.name, "", part)

        for encoder, front in self.fronts.items():
            every = [r for r in self.ranked if r.encoder == encoder]
            title = f"{name}: {encoder} encoder of {label}"
            plots.pareto(every, front, best.layer, title, stem(f"pareto-{encoder}"))
        (before, (images, truth, said_before)), (after, (_, _, said)) = seen
        names, similar, count = after
        plots.similarity(before[1], similar, names, f"{name}, test split, {count} pictures", stem("cosine"))
        plots.pictures(images, truth, said_before, said, f"{name}, test split: top-1 before and after", stem("pictures"))

    def _write_steps(self, folder: Path, found: Found) -> None:
        """A log of each layer in the published format, and the CSV of all candidates, the unedited model first."""
        label, start = self.world.clip.label, self.evaluators["validation"].start
        for layer, curve in found.curves.items():
            log = folder / "steps" / records.file_name(label, self.name, f"-{files.safe_name(layer)}.txt")
            files.write_text(log, records.step_log(start, curve, layer))
        path = folder / records.file_name(label, self.name, "-steps.csv")
        records.write_candidates(path, [start, *found.candidates])

    def _record(self, found: Found, best: Candidate, splits: Any, seconds: float, delta: Path) -> dict[str, Any]:
        clip, forget = self.world.clip, self.gradients.forget
        variant, files_of = variants.get(self.method), self.world.gradients
        gradient_s, shared_s = (files_of.seconds(self.name, variant, side) for side in ("forget", "train"))
        moved = list(best.edit.changes)
        tenth = layers.first_step([clip.parameters[n] for n in moved], [forget[n] for n in moved])
        touched = sum(t.numel() for t in best.edit.changes.values())
        return {
            "method": self.method,
            "name": plain_name(self.name),
            "kind": self.evaluators["test"].target.kind,
            "model": clip.label,
            "tag": clip.tag,
            "layer": best.layer,
            "group": list(clip.group(best.layer)),
            "step": best.step,
            "relative_step": best.step / (10 * tenth),
            "delta": delta.name,
            "delta_bytes": delta.stat().st_size,
            "params_touched": touched,
            "params_share": touched / sum(p.numel() for p in clip.parameters.values()),
            "n_candidates": len(found.candidates),
            "fronts": {e: [r._asdict() for r in part] for e, part in self.fronts.items()},
            "winner_validation": best.row(),
            "seconds": gradient_s + seconds,
            "gradient_s": gradient_s,
            "shared_s": shared_s,
            "search_s": seconds,
            "peak_mem_mb": system.peak_memory_mb(self.world.device),
            "splits": splits,
            "seed": self.settings.run.seed,
        }
