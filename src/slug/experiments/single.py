"""SLUG on one name after the other: search, choose, report on the test split, and write everything (a2_unlearn_slug.py)."""

import time
from pathlib import Path
from typing import Any

from slug import cli, files, progress, protocols, schema, system
from slug.artifacts import deltas, records
from slug.artifacts.gradient_files import Loaded
from slug.core import layers, search, slug, variants
from slug.core.edit import Edit
from slug.core.gradients import BOTH
from slug.core.search import Found, Plan, Schedule
from slug.core.selection import Candidate
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import looks, outcome
from slug.experiments.setup import World, frozen_aliases
from slug.reports import clip_report, plots
from slug.reports.pages import pictures
from slug.settings import Forget

OWN = ("images", "classes", "evaluate")  # of a2_unlearn_slug.py with own pictures, which this module does not serve
# These change no result.
NOT_SETTINGS = (
    *("force", "celeb_name", "device", "workers", "result_dir", "cache_gb", "lookahead", "allow_missing", "frozen"),
    *OWN,
)
Views = tuple[Any, Any, looks.Answers, looks.ByName]  # cosines of names, pictures with guesses, and what `looks` says


def run(settings: Forget) -> None:
    """Forget every name of the settings; valid records are kept."""
    world = World(settings.run, settings.model, settings.data, rule=settings.rule)
    system.reset_peak_memory(world.device)
    variant, folder = variants.get(settings.unlearn_method), files.resolve(settings.run.result_dir) / "clip"
    loaded = {name: world.gradients.load(name, variant) for name in world.gradients.names}
    evaluation, made = None, []
    world.check_names()
    for name, found in loaded.items():
        mark = {
            "settings": cli.flat(settings, NOT_SETTINGS),
            "inputs": records.inputs_hash(world.model_hash, (found.forget, found.retain), world.pictures),
            "rule": {**cli.flat(settings.rule), "close": search.CLOSE},
            "protocol": settings.run.protocol,
            "points": protocols.values(settings.run.rules),
            **settings.frozen_rules,
            "versions": cli.versions(),
        }
        path = folder / records.file_name(world.clip.label, name, ".json")
        record = None if settings.force else records.valid(path, mark)
        if record is None:
            evaluation = evaluation or world.evaluation_now(plain=settings.search.plain)
            record = Name(settings, world, evaluation, name, found).forget(folder, mark)
        elif world.rank == 0:
            print(f"{name}: valid, kept: {path}")
        made.append(record)
        if world.rank == 0:
            print(records.one_line(record))
    if world.rank == 0:
        records.write_important_layers(folder, world.clip.label)
        print(records.ending(made), end="\n" if records.ending(made) else "")


class Name:
    """One name: its search and everything that is written of it."""

    def __init__(self, settings: Forget, world: World, evaluation: Any, name: str, gradients: Loaded) -> None:
        self.settings, self.world, self.evaluation, self.name, self.gradients = settings, world, evaluation, name, gradients
        self.method = settings.unlearn_method
        how: dict[str, Any] = {"trace": settings.data.trace, "search_rule": settings.search.search_rule}
        self.evaluators = world.evaluators(name, world.pairs(name), evaluation=evaluation, **how)
        self.ranked = layers.figures(world.clip, gradients.forget, gradients.retain)
        self.fronts = layers.fronts(self.ranked)

    def file(self, end: str, part: str = "") -> str:
        """Name of one of the name's result files."""
        return records.file_name(self.world.clip.label, self.name, end, part)

    def search(self) -> tuple[Found, float]:
        """(what the search found, its seconds without what plots alone need)."""
        wanted, world, forget = self.settings.search, self.world, self.gradients.forget
        evaluator = self.evaluators["validation"]
        _ = evaluator.start  # before the clock starts
        fronts = layers.fronts(self.ranked, wanted.fronts)
        front = [layer for encoder, part in fronts.items() if wanted.encoder in (BOTH, encoder) for layer in part]
        if wanted.layer:
            front = [layer for layer in self.ranked if layer.name == wanted.layer]
            if not front:
                some = f"{self.ranked[0].name}, {self.ranked[-1].name}"
                raise SlugError(f"SLUG may not edit a layer {wanted.layer!r}; it may edit e.g. {some}")
        started = time.perf_counter()
        if wanted.step:
            best = evaluator.score(Edit.along(world.clip, wanted.layer, forget, wanted.step), log_all=True)
            found = Found({wanted.layer: [best]}, best)
        else:
            lookahead = 1 if wanted.plain else wanted.lookahead or (3 if world.device.type == "cuda" else 1)
            schedule = Schedule(rule=wanted.search_rule, lookahead=lookahead, evaluations=wanted.evaluations)
            plan = Plan(choose=wanted.choose, log_all=wanted.log_all or wanted.plain, schedule=schedule)
            bar = progress.bar(front, desc=f"{self.name}: layers", unit="layer", shown=world.rank == 0)
            found = slug.over_layers(world.clip, evaluator, bar, forget, plan)
        return found, time.perf_counter() - started - sum(c.trace_s for c in found.candidates)

    def forget(self, folder: Path, mark: dict[str, Any]) -> dict[str, Any]:
        """Search, choose, report, write; returns the record, which is empty in all processes but the first."""
        found, seconds = self.search()
        best, clip, name = found.winner, self.world.clip, plain_name(self.name)
        assert best is not None  # every candidate of a CLIP may be kept
        aliases = frozen_aliases(self.settings, self.name)
        splits = outcome.on_splits(self.evaluators, best.edit, self.method, self.settings.run.seed, aliases)
        before = self._views()
        with self.evaluation.carrying(best.edit):
            after = self._views()
        if self.world.rank:
            return {}
        delta = folder / self.file(".delta.safetensors")
        about = splits["test"][self.method] | {"split": "test", "method": self.method}
        deltas.save(delta, clip, best.edit.changes, name=name, layer=best.layer, step=best.step, metrics=about)
        self._plot(folder, best, before, after)
        files.write_json(folder / schema.LOOKS / self.file(".json"), self._looks(before, after))
        start = self.evaluators["validation"].start
        for layer, curve in found.curves.items():
            log = folder / "steps" / self.file(f"-{files.safe_name(layer)}.txt")
            files.write_text(log, records.step_log(start, curve, layer))
        records.write_candidates(folder / self.file("-steps.csv"), [start, *found.candidates])
        record = self._record(found, best, splits, seconds, delta) | mark
        clip_report.draw_steps(record, folder)
        files.write_json(folder / self.file(".json"), record)
        return record

    def _views(self) -> Views:
        """What plots and pages show of the model as it is."""
        test, seed = self.evaluators["test"], self.settings.run.seed
        similar = outcome.similarity(self.evaluation, [test.target], test.masks)
        seen = outcome.shown(self.evaluation, test.target, test.masks, seed=seed)
        return similar, seen, looks.answers(test, seed), looks.by_name(test)

    def _looks(self, before: Views, after: Views) -> dict[str, Any]:
        """What a page shows of the name besides its record; see schema.LOOKS."""
        (names, cosines, count), was = after[0], before[2]
        return {
            "name": plain_name(self.name),
            "layers": [r._asdict() for r in self.ranked],
            "names": names,
            "cosines": {"before": before[0][1].tolist(), "after": cosines.tolist(), "pictures": count},
            "among": was.among,
            "pictures": pictures.rows(was.images, was.truth, was.own, was.said, after[2].said),
            "by_name": looks.changed(before[3], after[3]),
        }

    def _plot(self, folder: Path, best: Candidate, before: Views, after: Views) -> None:
        name = plain_name(self.name)
        for encoder, front in self.fronts.items():
            every, stem = [r for r in self.ranked if r.encoder == encoder], folder / self.file("", f"pareto-{encoder}")
            plots.pareto(every, front, best.layer, f"{name}: {encoder} encoder", stem)
        (names, similar, count), (images, truth, said) = after[:2]
        title, stem = f"{name} and its nearest names ({count} pictures)", folder / self.file("", "cosine")
        plots.similarity(before[0][1], similar, names, title, stem)
        title, stem = f"{name}: what the model calls a picture, before \u2192 after", folder / self.file("", "pictures")
        own = [i < len(truth) // 2 for i in range(len(truth))]
        answers = list(zip(before[1][2], said, strict=True))
        right = [(old == true, new == true) for true, (old, new) in zip(truth, answers, strict=True)]
        plots.pictures(images.permute(0, 2, 3, 1).numpy(), own, answers, title, stem, right)

    def _record(self, found: Found, best: Candidate, splits: Any, seconds: float, delta: Path) -> dict[str, Any]:
        clip, forget = self.world.clip, self.gradients.forget
        files_of, kind = self.world.gradients, variants.get(self.method)
        gradient_s, shared_s = (files_of.seconds(self.name, kind, side) for side in ("forget", "train"))
        tenth = layers.first_step(*([tensors[n] for n in best.edit.changes] for tensors in (clip.parameters, forget)))
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
            "forgotten": best.forgotten,
            "caveat": records.clip_caveat(splits, best.forgotten, self.evaluators["validation"].rule.words),
            "model_hash": self.world.model_hash,
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
            "left_out": self.world.left_out,
            "seed": self.settings.run.seed,
        }
