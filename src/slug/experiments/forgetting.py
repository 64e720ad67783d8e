"""Forget a concept by someone's own pictures: read, split, take gradients, search, choose, report. Nothing is written here.

The concept's pictures and the retain pairs are split by source image into three parts: one gives the gradients, one chooses
the edit, one reports it (slug.data.photographs, slug.evaluation.unlabelled). Labelled sets may join the tasks.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from slug import cli, methods, progress
from slug.core import gradients, layers, losses, preconditioning, search, selection, slug
from slug.core.edit import Edit, InPlace, Replacement, kept, total
from slug.core.search import Plan, Schedule
from slug.core.selection import Candidate
from slug.core.variants import Variant
from slug.data import classes as class_names
from slug.data import photographs
from slug.data.labelled import Labelled
from slug.data.names import plain_name
from slug.data.photographs import Photographs, Sample, Source
from slug.data.splits import validation_mask
from slug.errors import SlugError
from slug.evaluation import outcome, statistics, unlabelled, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Masks, Target, TaskSet
from slug.experiments.baseline import Scored
from slug.experiments.comparison import argument
from slug.methods import Material, Method, grids
from slug.models.clip import Clip
from slug.schema import AGREEMENT, NAMES, ORIGINAL, PAIRS, SPLITS
from slug.settings import MAX_FORGET, SIGMAS, Compare

KNOWN = 0.5  # recognition by the unedited model below which a warning says that there is little to forget
Gradient = Mapping[str, torch.Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How something is forgotten; the defaults are those of the stages.

    Attributes:
        method: any of the registry for a CLIP.
        evaluations, fronts: of SLUG's search (see settings.Search).
        grid: settings of a baseline that are tried; empty: its own.
        epochs: of a baseline that trains.
        batch_size, eval_batch_size: of the gradient passes and of evaluations.
        select_pictures: retained pictures of each task that candidates are chosen by, at most.
        trace: of these, how many are scored at every candidate, for plots.
        cache_gb: see towers.Budget.
        workers: processes that decode pictures.
    """

    method: str = "slug"
    evaluations: int = 10
    fronts: int = 1
    grid: tuple[float, ...] = ()
    epochs: int = 10
    seed: int = 0
    batch_size: int = 16
    eval_batch_size: int = 256
    select_pictures: int = 4000
    trace: int = 100
    cache_gb: float = -1.0
    workers: int = 0


class Shown(NamedTuple):
    """Pictures to look at, with what the model calls them before and after the edit."""

    images: torch.Tensor  # (K, 3, S, S) uint8: of the concept, then of other things
    own: list[bool]
    before: list[str]
    after: list[str]


@dataclass(frozen=True)
class Forgotten:
    """What came out for one name.

    Attributes:
        edit: the winner.
        record: everything that a report says, as JSON can hold it.
        shown: some test pictures before and after.
    """

    edit: Edit
    record: dict[str, Any]
    shown: Shown


class Forgetting:
    """One CLIP at its original weights with the pictures of some names and of other things, on which names are forgotten."""

    def __init__(
        self,
        clip: Clip,
        concepts: Mapping[str, Source],
        retain: Source,
        *,
        classes: Sequence[str] | None = None,
        labelled: Mapping[str, Labelled] | None = None,
        wanted: Wanted = Wanted(),
        say: Say = progress.write,
    ) -> None:
        """
        Args:
            concepts: {name: where its pictures are}; see photographs.find.
            retain: where pairs of other things are.
            classes: names that the forgotten ones compete with; None: classes.default.
            labelled: further evaluation sets by name.
            say: takes each line that a user should read.
        Raises:
            SlugError: too few pictures, or a set that cannot be used.
        """
        self.clip, self.wanted, self.say = clip, wanted, say
        self.names = [plain_name(name) for name in concepts]
        self.method = _method(wanted.method)
        self.notes: dict[str, list[str]] = {name: [] for name in self.names}
        started = time.perf_counter()
        # All is found before anything is decoded: a wrong path is an error now.
        found = {n: photographs.find(s, f"pictures of {n}") for n, s in zip(self.names, concepts.values(), strict=True)}
        samples, self.left_out = photographs.retained(photographs.find(retain, "retain set"), self.names, wanted.seed)
        self.concepts = {name: self._concept(name, part) for name, part in found.items()}
        self.retain = self._retained(samples)
        self.parts = {name: photographs.split(p.groups, wanted.seed) for name, p in self.concepts.items()}
        self.retain_parts = photographs.split(self.retain.groups, wanted.seed)
        given = class_names.default(self.retain.pairs.captions) if classes is None else classes
        self.classes = class_names.competing(self.names, given)
        if len(self.classes) <= len(self.names):
            raise SlugError("the forgotten names need others to compete with; give classes")
        self.labelled = dict(labelled or {})
        self.read_s = time.perf_counter() - started

    # ------------------------------------------------------------------------------------------------------------- data

    def _photographs(self, samples: Sequence[Sample], what: str) -> Photographs:
        pairs = photographs.decoded(samples, self.clip.transform, what, self.wanted.workers)
        features = zeroshot.image_features(self.clip, pairs.images, self.wanted.eval_batch_size, desc=f"look at the {what}")
        return Photographs(pairs, features.cpu(), photographs.source_images(pairs, features.cpu()))

    def _concept(self, name: str, samples: Sequence[Sample]) -> Photographs:
        found = self._photographs(samples, f"pictures of {name}")
        photographs.check_enough(found, name)
        pairs, replaced = photographs.name_all(found.pairs, name)
        if replaced:
            self._note(name, f"{replaced} captions do not say {name}; the name itself is the caption of these pictures")
        return found._replace(pairs=pairs)

    def _retained(self, samples: Sequence[Sample]) -> Photographs:
        """The retain pairs, without pictures that nearly repeat one of a concept."""
        found = self._photographs(samples, "retain set")
        hashes = photographs.hashes(found.pairs.images)
        repeats = torch.zeros(len(found.groups), dtype=torch.bool)
        for concept in self.concepts.values():
            near = photographs.alike(found.features, hashes, concept.features, photographs.hashes(concept.pairs.images))
            repeats |= near.any(1)
        self.left_out |= {
            "cannot be decoded": found.pairs.broken,
            "repeat pictures of what is forgotten": int(repeats.sum()),
        }
        kept_ones = found.where((~repeats).tolist())
        if len(kept_ones.groups) < photographs.FEWEST_RETAINED:
            raise SlugError(
                f"{int(repeats.sum())} of the {len(repeats)} pictures of the retain set repeat pictures of "
                f"{' or '.join(self.names)}; give pairs of other things to retain"
            )
        return kept_ones

    def _note(self, name: str, text: str) -> None:
        self.notes[name].append(text)
        self.say(f"note: {text}")

    def forget_pairs(self, name: str) -> Any:
        """The pairs that give a name's gradient."""
        return self.concepts[name].part(self.parts[name]["gradient"]).pairs

    @functools.cached_property
    def retain_pairs(self) -> Any:
        """The pairs that give the retain gradient."""
        return self.retain.part(self.retain_parts["gradient"]).pairs

    # ------------------------------------------------------------------------------------------------------- evaluation

    @functools.cached_property
    def _tasks(self) -> tuple[Evaluation, dict[str, Masks]]:
        """The evaluation of the unedited model, and {split: {task: mask of its pictures}}."""
        rows = {n: torch.cat([p[split] for split in SPLITS]) for n, p in self.parts.items()}
        others = torch.cat([self.retain_parts[split] for split in SPLITS])
        held_out = {name: self.concepts[name].part(r) for name, r in rows.items()}
        sets = unlabelled.task_sets(held_out, self.retain.part(others), self.classes)
        first = torch.cat([torch.arange(len(r)) < len(self.parts[n]["validation"]) for n, r in rows.items()])
        of_retain = torch.arange(len(others)) < len(self.retain_parts["validation"])
        validation = {NAMES: first, AGREEMENT: of_retain, PAIRS: of_retain}
        for name, (pictures, templates) in self.labelled.items():
            sets.append(TaskSet(name, "class", pictures, templates or zeroshot.object_templates()))
            validation[name] = validation_mask(pictures, self.wanted.seed)
        evaluation = Evaluation(self.clip, sets, batch_size=self.wanted.eval_batch_size, cache_gb=self.wanted.cache_gb)
        return evaluation, {"validation": validation, "test": {task: ~mask for task, mask in validation.items()}}

    def evaluators(self, name: str) -> dict[str, ClipEvaluator]:
        """{split: ClipEvaluator} of a name."""
        evaluation, masks = self._tasks
        target = Target(name, unlabelled.CONCEPT, NAMES, self.names.index(name))
        left_out, seed = unlabelled.own_labels(evaluation, target), self.wanted.seed
        how: dict[str, Any] = {"seed": seed, "left_out": left_out}
        choosing = {"limit": self.wanted.select_pictures, "trace": self.wanted.trace}
        more: dict[str, dict[str, Any]] = {"validation": choosing, "test": {}}
        return {s: ClipEvaluator(evaluation, target, None, masks[s], **more[s], **how) for s in SPLITS}

    # -------------------------------------------------------------------------------------------------------- gradients

    @functools.cache  # noqa: B019  (one Forgetting lives as long as its model)
    def _pass(self, name: str, variant: Variant) -> Gradient:
        """A gradient pass over a name's pairs, or for "" over the retain pairs."""
        pairs = self.forget_pairs(name) if name else self.retain_pairs
        loss = losses.forget(variant) if name else losses.contrastive
        how: dict[str, Any] = {"batch_size": self.wanted.batch_size, "square": variant.squared}
        return gradients.compute(self.clip, pairs, loss, **how, desc=f"{name or 'retain set'}: gradient")[0]

    @functools.cache  # noqa: B019
    def _moments(self, name: str) -> preconditioning.Found:
        pairs = self.forget_pairs(name) if name else self.retain_pairs
        desc = f"{name or 'retain set'}: layer inputs"
        return preconditioning.moments(self.clip, pairs, batch_size=self.wanted.batch_size, desc=desc)

    def forget_gradient(self, name: str, variant: Variant) -> Gradient:
        """The gradient that SLUG steps along."""
        found = self._pass(name, variant.plain)
        if not variant.preconditioned:
            return found
        others = [n for n in self.names if n != name] if variant.spares_others else []
        held = {"": self.retain_pairs} | {n: self.forget_pairs(n) for n in others}
        sums = {n: self._moments(n) for n in held}
        moments = preconditioning.retained(self.clip, held, sums, name, batch_size=self.wanted.batch_size)
        return preconditioning.preconditioned(found, moments)

    # ----------------------------------------------------------------------------------------------------------- search

    def _searched(self, name: str, evaluator: ClipEvaluator) -> tuple[search.Found, list[layers.Layer]]:
        """SLUG's search, and the layers that it could have edited."""
        forget = self.forget_gradient(name, self.method.variant)
        ranked = layers.figures(self.clip, forget, self._pass("", Variant()))
        front = [layer for part in layers.fronts(ranked, self.wanted.fronts).values() for layer in part]
        # Where the model does not know the name, every step "forgets", and there is nothing to search for.
        evaluations = min(self.wanted.evaluations, 2) if evaluator.start.forgotten else self.wanted.evaluations
        lookahead = 3 if self.clip.device.type == "cuda" else 1
        plan = Plan(schedule=Schedule(lookahead=lookahead, evaluations=evaluations))
        bar = progress.bar(front, desc=f"{name}: layers", unit="layer")
        return slug.over_layers(self.clip, evaluator, bar, forget, plan), ranked

    def _trained(self, name: str, evaluator: ClipEvaluator) -> search.Found:
        """A baseline over its grid, chosen by the same rule."""
        method, base_settings = self.method, Compare.__dataclass_fields__
        assert method.candidates is not None
        made = self._material(name)
        asked = sorted(self.wanted.grid or method.grid or base_settings[method.setting].default)
        how = {"wd": base_settings["wd"].default, "batch_size": 32, "warmup": 0}
        how |= {"epochs": self.wanted.epochs, "seed": self.wanted.seed}
        curves: dict[str, list[Candidate]] = {}
        setting_of: dict[str, float] = {}
        best: Candidate | None = None

        def chosen() -> list[float]:
            return [setting_of[best.layer]] if best else []

        for setting in grids.growing(asked, base_settings["grow"].default, chosen):
            label = f"{method.symbol} {setting:g}"
            setting_of[label], scored = setting, Scored(evaluator, best)
            with kept(self.clip, self.clip.parameters) as base:
                for number in method.candidates(self.clip, made, argument(method, setting, how)):
                    edit = InPlace.of(self.clip, label, number)
                    with evaluator.evaluation.carrying(edit):
                        scored.score(edit, base)
            curves[label] = [replace(c, edit=Edit({}, c.layer, c.step)) for c in scored.candidates]
            if scored.best is not None and selection.winner([best, scored.best]) is scored.best:
                best = replace(scored.best, edit=Replacement(scored.weights, scored.best.layer, scored.best.step))
        return search.Found(curves, best)

    def _material(self, name: str) -> Material:
        method, made = self.method, {}
        for variant in method.gradients:
            if variant.squared:
                made |= {"forget_importance": self._pass(name, variant), "retain_importance": self._pass("", variant)}
            else:
                made["gradient"] = self._pass(name, variant)
        return Material(self.forget_pairs(name), self.retain_pairs, method.variant, **made)

    # ------------------------------------------------------------------------------------------------------------ a name

    def run(self, name: str) -> Forgotten:
        """Forget one name: search, choose on the validation split, report on the test split."""
        evaluation, started = self._tasks[0], time.perf_counter()
        evaluators = self.evaluators(name)
        target = evaluators["test"].target
        self._check_known(name, evaluators)
        ranked: list[layers.Layer] = []
        if self.method.searched:
            found, ranked = self._searched(name, evaluators["validation"])
        else:
            found = self._trained(name, evaluators["validation"])
        best, searched = found.winner, time.perf_counter()
        assert best is not None  # every candidate of a CLIP may be kept
        near = unlabelled.neighbours(evaluation, target)
        splits, shown = self._report(evaluators, best.edit, near)
        self._check_forgotten(name, best, splits)
        changes = best.edit.changes
        record = {
            "name": name,
            "method": self.method.name,
            "model": self.clip.label,
            "tag": self.clip.tag,
            "layer": best.layer,
            "step": best.step,
            "forgotten": best.forgotten,
            "params_touched": sum(t.numel() for t in changes.values()),
            "params_share": sum(t.numel() for t in changes.values()) / sum(p.numel() for p in self.clip.parameters.values()),
            "fronts": {e: [r._asdict() for r in part] for e, part in layers.fronts(ranked).items()},
            "layers": [r._asdict() for r in ranked],
            "candidates": [_clean(c.row()) for c in found.candidates],
            "start": _clean(evaluators["validation"].start.row()),
            "winner": _clean(best.row()),
            "n_candidates": len(found.candidates),
            "splits": splits,
            "neighbours": [self.classes[i] for i in near],
            "sets": self._sets(name),
            "labelled": list(self.labelled),
            "notes": self.notes[name],
            "read_s": self.read_s,
            "search_s": searched - started,
            "seconds": self.read_s + time.perf_counter() - started,
            "rule": {"max_forget": MAX_FORGET, "sigmas": SIGMAS},
            "settings": asdict(self.wanted),
            "versions": cli.versions(),
        }
        return Forgotten(best.edit, record, shown)

    def _report(
        self, evaluators: Mapping[str, ClipEvaluator], edit: Edit, near: Sequence[int]
    ) -> tuple[dict[str, Any], Shown]:
        """The figures of both splits with and without the edit, and pictures to look at."""
        evaluation, masks = self._tasks
        seed, method = self.wanted.seed, self.method.name
        splits = outcome.on_splits(evaluators, edit, method, seed)
        before = self._shown(evaluators["test"])
        for state, context in ((ORIGINAL, Edit()), (method, edit)):
            with evaluation.carrying(context):
                for split, evaluator in evaluators.items():
                    more = unlabelled.figures(evaluator, near)
                    labelled = unlabelled.in_labelled(evaluation, evaluator.target, masks[split])
                    splits[split][state] = _clean(splits[split][state] | more | {"in_labelled": labelled})
                after = self._shown(evaluators["test"])
        said = {s: unlabelled.answers(evaluation, e.forget_rows) for s, e in evaluators.items()}
        for split in SPLITS:
            splits[split]["said"] = said[split]
        return splits, before._replace(after=after.before)

    def together(self, edits: Mapping[str, Edit]) -> dict[str, dict[str, float]]:
        """How much of each name is recognised on the test split where all edits are applied at once."""
        evaluation, found = self._tasks[0], {}
        rows = {name: self.evaluators(name)["test"].forget_rows for name in self.names}
        before = {name: (evaluation.ranks(NAMES, r) < 1) for name, r in rows.items()}
        with evaluation.carrying(total(edits.values())):
            for name, r in rows.items():
                hits, n = int((evaluation.ranks(NAMES, r) < 1).sum()), len(r)
                found[name] = {"before": before[name].float().mean().item(), "after": hits / n, "recognised": hits, "n": n}
        return found

    def _shown(self, evaluator: ClipEvaluator, count: int = 7) -> Shown:
        images, own, said = [], [], []
        for task, rows in ((NAMES, evaluator.forget_rows), (AGREEMENT, evaluator.retain_rows[AGREEMENT])):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.wanted.seed))
            chosen = rows[order[:count]]
            pictures = evaluator.evaluation.tasks[task].pictures
            features, weights = evaluator.evaluation.sides(task, chosen)
            guess = zeroshot.guesses(features, weights, pictures.labels[chosen], pictures.blocks)
            images.append(pictures.images[chosen])
            own += [task == NAMES] * len(chosen)
            said += [pictures.names[i] for i in guess.tolist()]
        return Shown(torch.cat(images), own, said, said)

    def _sets(self, name: str) -> dict[str, Any]:
        """How many pictures and source images each part has."""
        both = {name: (self.concepts[name], self.parts[name]), "retain": (self.retain, self.retain_parts)}
        found: dict[str, Any] = {}
        for what, (pictures, parts) in (("concept", both[name]), ("retain", both["retain"])):
            found[what] = {
                part: {"pictures": len(rows), "sources": len({pictures.groups[i] for i in rows.tolist()})}
                for part, rows in parts.items()
            }
        found["broken"] = self.concepts[name].pairs.broken
        return found | {"left_out_of_retain": self.left_out, "classes": len(self.classes)}

    # ------------------------------------------------------------------------------------------------------------ notes

    def _check_known(self, name: str, evaluators: Mapping[str, ClipEvaluator]) -> None:
        """A note where the unedited model recognises less than half of the held-out pictures by the name."""
        rows = torch.cat([e.forget_rows for e in evaluators.values()])
        evaluation = self._tasks[0]
        hits = int((evaluation.ranks(NAMES, rows) < 1).sum())
        if hits >= KNOWN * len(rows):
            return
        said = ", ".join(f"{answer} ({share:.0%})" for answer, share in unlabelled.answers(evaluation, rows))
        self._note(
            name,
            f"the unedited model recognises {hits} of {len(rows)} held-out pictures as {name}: there is little to forget, or "
            f"the name is not what the model calls them; it says {said}",
        )

    def _check_forgotten(self, name: str, best: Candidate, splits: Mapping[str, Any]) -> None:
        """A note where nothing was forgotten."""
        before, after = (splits["test"][state] for state in (ORIGINAL, self.method.name))
        n = before["n_forget"]
        if before["forget_acc1"] <= MAX_FORGET:
            self._note(
                name,
                f"nothing was forgotten: the unedited model recognised {before['forget_recognised']} of {n} "
                "test pictures before",
            )
        elif not best.forgotten:
            self._note(
                name,
                f"nothing was forgotten by the rule: no step brought recognition on the validation split to {MAX_FORGET:.0%} "
                f"with margins {SIGMAS:g} deviations below 0; the edit is the one that came nearest. Try more fronts",
            )
        elif after["forget_acc1"] > MAX_FORGET:
            low, high = statistics.interval(after["forget_recognised"], n)
            self._note(
                name,
                f"on the test split {after['forget_recognised']} of {n} pictures are still recognised "
                f"({low:.0%} to {high:.0%}), although none was on the validation split",
            )


def _method(name: str) -> Method:
    """The method of a name, for a CLIP. SlugError for another one."""
    found = methods.get(name)
    if methods.CLIP not in found.hosts:
        raise SlugError(f"{name} is no method for a CLIP; choose from {', '.join(methods.names(methods.CLIP))}")
    return found


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without values that were not evaluated."""
    return {k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
