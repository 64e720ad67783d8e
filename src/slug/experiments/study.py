"""A study of the method's choices: every name is forgotten in every variant, and each run starts from the original weights.

The standard variant is what a2_unlearn_slug.py does; each other one differs from it in one choice. Runs choose on the
validation split and report on the test split. `reports.claims` reads the table and says what became of the paper's claims.
"""

import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slug import cli, files, protocols
from slug.artifacts import gradient_files, records
from slug.core import gradients, layers, losses, search, slug
from slug.core.edit import Edit
from slug.core.search import Schedule
from slug.core.selection import Candidate
from slug.core.variants import Variant
from slug.data.names import plain_name
from slug.data.pairs import Pairs, saying, some, source_images
from slug.errors import SlugError, brief
from slug.evaluation import outcome
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.experiments import study_variants
from slug.experiments.runner import Parts
from slug.experiments.setup import World
from slug.experiments.study_variants import VARIANTS, StudyVariant
from slug.settings import Study

FORGET, METHOD = Variant(), "slug"


def digest(value: Any) -> str:
    """Hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def parts(settings: Study) -> Parts:
    """The rows of a study."""
    return Parts(files.resolve(settings.run.result_dir), ("model", "name", "variant"), "fingerprint", study_variants.SCHEMA)


class Remembering:
    """An evaluator that scores a step of a layer once: variants of one name try the same ones. The winner is the same: a
    step that was scored more fully than a search needed is one that loses in it.

    `known`, {(layer, step): candidate}, is of the same weights, gradient and pictures; it grows."""

    def __init__(self, evaluator: ClipEvaluator, known: dict[tuple[str, float], Candidate]) -> None:
        self.evaluator, self.known, self.look_ahead = evaluator, known, evaluator.look_ahead

    def score(self, edit: Edit, best: Candidate | None = None, *, log_all: bool = False) -> Candidate:
        """As ClipEvaluator.score."""
        found = self.known.get((edit.layer, edit.step))
        given_up = found is not None and math.isnan(found.retained)
        if found is None or (given_up and (found.forgotten or log_all)):
            found = self.known[edit.layer, edit.step] = self.evaluator.score(edit, best, log_all=log_all)
        return found


class Result(NamedTuple):
    """What the search of a variant came to."""

    edit: Edit
    moved: list[tuple[str, float]]  # (layer, the step that was taken on it) of each round
    best: Candidate  # the last round's winner, for the whole edit
    n_layers: int  # tried, or moved together
    n_candidates: int
    seconds: float  # of all steps, those that another variant scored included, and of gradients taken anew


class StudyWorld(World):
    """What the runs of one process share."""

    def __init__(self, settings: Study) -> None:
        super().__init__(settings.run, settings.model, settings.data, rule=settings.rule)
        self.settings = settings
        self._known: tuple[str, dict[str, dict]] = ("", {})

    @functools.cached_property
    def every_pair(self) -> Pairs:
        """The retain set of all names."""
        return self.gradients.pairs(self.gradients.retain_tar, self.gradients.left_out_of_all, self.run.workers)

    def retained(self, name: str) -> Pairs:
        """The retain set of a name."""
        return some(self.every_pair, saying(self.every_pair, [plain_name(name)], says=False))

    def compute(self, pairs: Pairs, loss: Any, desc: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The gradient at the present weights and its figures, as core.gradients.compute."""
        how: dict[str, Any] = {"batch_size": self.model.batch_size, "protocol": self.protocol}
        return gradients.compute(self.clip, pairs, loss, **how, desc=desc)

    def retain_part(self, name: str, variant: StudyVariant) -> dict[str, torch.Tensor]:
        """The gradient of the variant's part of a name's retain set. SlugError if `share` was not called before."""
        path, mark = self.share(variant)
        whole = gradient_files.load(path, mark, "python src/clip/a6_study.py")
        figures = files.read_object(path.with_suffix(".json"))
        part = some(self.every_pair, self.part_rows(variant))
        how: dict[str, Any] = {"protocol": self.protocol, "desc": f"retain set without {name}: gradient"}
        return gradients.without(self.clip, part, saying(part, [plain_name(name)]), whole, figures, **how)[0]

    def part_rows(self, variant: StudyVariant) -> list[int]:
        """The pairs of the variant's part of the retain set."""
        seed = [self.run.seed, variant.draw]
        return study_variants.part_of(len(self.every_pair.captions), variant.retain_share, seed)

    def share(self, variant: StudyVariant, *, make: bool = False) -> tuple[Path, dict[str, Any]]:
        """(file of the gradient of the variant's part of the retain set; what it depends on). `make` makes it; it serves
        all names, so it is made before runs are dealt out."""
        mark = self.gradients.mark(self.gradients.retain_tar, losses.contrastive, FORGET, self.gradients.left_out_of_all)
        mark |= {"share": variant.retain_share, "draw": variant.draw, "seed": self.run.seed}
        path = self.gradients.retain_folder / f"train_grads_{variant.retain_share:g}_{variant.draw}.pt"
        if make and not gradient_files.is_valid(path, mark):
            desc = f"retain set, {variant.retain_share:.0%}: gradient"
            found, figures = self.compute(some(self.every_pair, self.part_rows(variant)), losses.contrastive, desc)
            gradient_files.save(path, found, {**mark, **figures, "convention": gradient_files.CONVENTION})
        return path, mark

    def shared_hash(self) -> str:
        """Hash of all that every run of a study depends on: model, evaluation, retain set, flags, rules, versions."""
        tar = files.file_hash(self.gradients.retain_tar)
        inputs, flags = [records.inputs_hash(self.model_hash, (), self.pictures), tar], cli.flat(self.settings)
        limits, points = self.settings.rule, protocols.values(self.protocol)
        rule = (limits.max_forget, limits.sigmas, search.CLOSE, Schedule().far)
        shared = {k: flags[k] for k in study_variants.SHARED}
        other = [points] if self.protocol != protocols.OURS else []  # so that studies of before protocols are valid
        return digest([inputs, rule, shared, self.gradients.left_out_of_all, cli.versions(), *other])

    def search(self, name: str, variant: StudyVariant, forget: Any, retain: Any, pairs: Pairs) -> Result:
        """Find a variant's edit on the validation split, by the gradients at the original weights; `forget` is of `pairs`.

        With several rounds, the first of R layers moves 1/R of the step that would forget, the next one 1/(R - 1) of what
        would then, the last one all of it; each is chosen anew at the weights then, among the layers not moved yet.
        """
        edit, tried, count, seconds = Edit(), 0, 0, 0.0
        moved: list[tuple[str, float]] = []
        best: Candidate | None = None
        for left in range(variant.rounds, 0, -1):
            with edit.applied(self.clip):
                evaluation = None
                if moved:
                    began = time.perf_counter()
                    forget, _ = self.compute(pairs, losses.cosine_embedding, f"{name}: gradient at the edited weights")
                    desc = f"retain set without {name}: gradient at the edited weights"
                    retain, _ = self.compute(self.retained(name), losses.contrastive, desc)
                    seconds += time.perf_counter() - began
                    evaluation = self.evaluation_now()
                how: dict[str, Any] = {"splits": ["validation"], "search_rule": variant.search_rule}
                evaluator: Any = self.evaluators(name, None, evaluation=evaluation, **how)["validation"]
                if not moved and not variant.together:  # the layers that move together differ between variants
                    if self._known[0] != name:  # steps are remembered for one name at a time
                        self._known = (name, {})
                    evaluator = Remembering(
                        evaluator, self._known[1].setdefault(variant.search_rule + files.tensor_hash(forget), {})
                    )
                ranked = [r for r in layers.figures(self.clip, forget, retain) if r.name not in edit.changes]
                front = study_variants.layers_of(ranked, variant)
                found = slug.over_layers(self.clip, evaluator, front, forget, variant.plan)
            best = found.winner
            if best is None:
                raise SlugError(f"{self.clip.label} has no layer that this variant may edit")
            edit = edit + Edit.along(self.clip, best.layer, forget, best.step / left, list(best.edit.changes))
            moved.append((best.layer, best.step / left))
            tried, count = tried + len(front), count + len(found.candidates)
            seconds += sum(c.scores["seconds"] for c in found.candidates)
        assert best is not None  # there is one round or more
        return Result(edit, moved, best, tried, count, seconds)

    def forget(self, name: str, variant: StudyVariant) -> tuple[dict[str, Any], list]:
        """Forget one name in one way: (the figures of its row, Result.moved). SlugError where a gradient is missing or
        stale, or a variant needs the source images of the forget set and they are not known."""
        started, clip = time.perf_counter(), self.clip
        forget, retain, tar, _ = self.gradients.load(name, FORGET)
        gradient_s = self.gradients.seconds(name, FORGET)
        pairs, drawings = self.pairs(name), None
        if variant.renderings or variant.drawings:
            known = source_images(tar, files.existing(self.settings.laion_dir, "shard folder", "give --laion-dir"))
            drawings = [known[key] for key in pairs.keys]
            rows = study_variants.forget_part(drawings, variant, self.run.seed)
            pairs, drawings = some(pairs, rows), [drawings[i] for i in rows]
            began = time.perf_counter()
            forget, _ = self.compute(pairs, losses.cosine_embedding, f"{name}: gradient of a part of the forget set")
            gradient_s = time.perf_counter() - began
        if variant.retain_share < 1:
            retain = self.retain_part(name, variant)
        found = self.search(name, variant, forget, retain, pairs)
        test, target = self.evaluators(name, None, splits=["test"]), self.evaluation.target(name)
        figures = outcome.on_splits(test, found.edit, METHOD, self.run.seed)["test"]
        touched = sum(t.numel() for t in found.edit.changes.values())
        row = {
            "name": target.name,
            "kind": target.kind,
            "model": clip.label,
            "layer": " + ".join(layer for layer, _ in found.moved),
            "step": found.best.step,
            "params_share": touched / sum(p.numel() for p in clip.parameters.values()),
            "n_moved": len(found.edit.changes),
            "n_layers": found.n_layers,
            "n_candidates": found.n_candidates,
            "n_pairs": len(pairs.captions),
            "n_pair_drawings": len(set(drawings)) if drawings else None,
            "seconds": gradient_s + found.seconds,
            "gradient_s": gradient_s,
            "search_s": found.seconds,
            "run_s": time.perf_counter() - started,
            "validation_forget_acc1": found.best.scores["forget_acc1"],
            "validation_forgets": bool(found.best.forgotten),
            **{c: figures[METHOD][c] for c in (*study_variants.FIGURES, *study_variants.COUNTS)},
            **{f"original_{c}": figures["original"][c] for c in study_variants.BEFORE},
        }
        return row, found.moved


world_of = functools.lru_cache(1)(StudyWorld)  # made once in a process


class Planned(NamedTuple):
    """A run that is asked for."""

    name: str  # as given
    model: str
    variant: str
    shared: str  # StudyWorld.shared_hash
    fingerprint: str  # of all that it depends on

    @property
    def key(self) -> tuple[str, str, str]:
        """Of runner.Parts."""
        return self.model, self.name, self.variant


def plan(world: StudyWorld, names: Sequence[str], variants: Sequence[str]) -> list[Planned]:
    """Every name in every variant."""
    shared, out = world.shared_hash(), []
    for name in names:
        found = world.gradients.load(name, FORGET)
        own = [files.tensor_hash(found.forget), files.tensor_hash(found.retain), files.file_hash(found.tar)]
        for v in variants:
            out.append(Planned(name, world.clip.label, v, shared, digest([shared, own, asdict(VARIANTS[v])])))
    return out


def attempt_all(planned: Sequence[Planned], settings: Study) -> list[dict[str, Any]]:
    """The rows of several runs, one after the other in one process: those of one name share the steps that they score."""
    return [attempt(p, settings) for p in planned]


def attempt(planned: Planned, settings: Study) -> dict[str, Any]:
    """Do one run, here or in a process that knows nothing yet; write its part and return its row.

    Whatever a run fails of, memory and errors of libraries included, becomes its row's `error`: the other runs go on.
    """
    row = planned._asdict() | {"name": plain_name(planned.name), "seed": settings.run.seed, "process": os.getpid()}
    said = {"flags": cli.flat(settings), "variant": asdict(VARIANTS[planned.variant]), "threads": torch.get_num_threads()}
    try:
        found, said["moved"] = world_of(settings).forget(planned.name, VARIANTS[planned.variant])
        row |= found
    except Exception as err:
        row["error"] = str(err) if isinstance(err, SlugError) else f"{type(err).__name__}: {brief(err)}"
    row |= {"settings": json.dumps(said, sort_keys=True), "versions": json.dumps(cli.versions())}
    parts(settings).write([row], *planned.key)
    return row


def quick_names(world: StudyWorld) -> list[str]:
    """The first names of each kind, as many as a quick study takes."""
    known = {n.casefold() for n in world.pictures[0].names}
    found: dict[str, list[str]] = {"identities": [], "objects": []}
    for name in world.gradients.names:
        found["identities" if plain_name(name).casefold() in known else "objects"].append(name)
    chosen = [name for task, count in study_variants.QUICK_NAMES.items() for name in found[task][:count]]
    return [name for name in world.gradients.names if name in chosen]


def finished(parts: Parts, planned: Planned) -> bool:
    """Whether a run was done before, with everything the same, and did not fail."""
    rows = parts.rows(planned.fingerprint, *planned.key)
    return bool(rows) and rows[0]["error"] is None


def merge(parts: Parts, planned: Sequence[Planned]) -> int:
    """Write the rows of those runs that were done as the study's table; returns how many."""
    rows, order = [row for p in planned for row in parts.rows(p.fingerprint, *p.key)], list(VARIANTS)
    parts.merge(sorted(rows, key=lambda r: (r["name"], order.index(r["variant"]))))
    return len(rows)
