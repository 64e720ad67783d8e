"""Forget a concept by someone's own pictures: read, split, take gradients, search, choose, report. Nothing is written here.

The concept's pictures and the retain pairs are split by source image into three parts: one gives the gradients, one chooses
the edit, one reports it (slug.data.photographs, slug.evaluation.unlabelled). Labelled sets may join the tasks.
"""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from slug import cli, progress, protocols
from slug.core import layers, selection
from slug.core.edit import Edit, total
from slug.core.selection import Candidate
from slug.data import labelled
from slug.data.labelled import Labelled
from slug.data.photographs import Source
from slug.data.splits import validation_mask
from slug.errors import SlugError
from slug.evaluation import looks, outcome, statistics, unlabelled, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Masks, Target, TaskSet
from slug.experiments.own_search import OwnSearch, method_of
from slug.experiments.own_sets import STANDARD, OwnSets, Say, Wanted
from slug.models.clip import Clip
from slug.models.host import HostModel
from slug.schema import AGREEMENT, NAMES, ORIGINAL, PAIRS, SPLITS

KNOWN = 0.5  # recognition by the unedited model below which a warning says that there is little to forget


class Shown(NamedTuple):
    """Pictures to look at, with what the model calls them before and after the edit."""

    images: torch.Tensor  # (K, 3, S, S) uint8: of the concept, then of other things
    own: list[bool]
    before: looks.Said  # for each picture the first answers
    after: looks.Said


@dataclass(frozen=True)
class Forgotten:
    """What came out for one name.

    Attributes:
        edit: the winner.
        record: everything that a report says, as JSON can hold it.
        shown: some test pictures before and after; of several towers {tower: ...}.
    """

    edit: Edit
    record: dict[str, Any]
    shown: Shown | dict[str, Any]


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
        wanted: Wanted = STANDARD,
        host: HostModel | None = None,
        say: Say = progress.write,
    ) -> None:
        """
        Args:
            concepts: {name: where its pictures are}; see photographs.find.
            retain: where pairs of other things are.
            classes: names that the forgotten ones compete with; None: classes.default.
            labelled: further evaluation sets by name.
            host: the model whose tower is to be edited, where `clip` is the CLIP of that tower.
            say: takes each line that a user should read.
        Raises:
            SlugError: too few pictures, or a set that cannot be used.
        """
        started = time.perf_counter()
        self.clip, self.wanted = clip, wanted
        self.method = method_of(wanted.method)
        self.sets = OwnSets(clip, concepts, retain, classes=classes, wanted=wanted, say=say)
        self.names = self.sets.names
        self.labelled = dict(labelled or {})
        self.passes = OwnSearch(self.sets, self.method, host)
        self.label = host.label if host else clip.label
        if host:
            tower = f"recognition is that of the CLIP whose {host.encoder} tower is in {host.label}"
            for name in self.names:
                self.sets.note(name, f"{tower}: look at what the whole model says or draws with the edit")
        self.read_s = time.perf_counter() - started

    # ------------------------------------------------------------------------------------------------------- evaluation

    @functools.cached_property
    def _tasks(self) -> tuple[Evaluation, dict[str, Masks]]:
        """The evaluation of the unedited model, and {split: {task: mask of its pictures}}."""
        rows = {n: torch.cat([p[split] for split in SPLITS]) for n, p in self.sets.parts.items()}
        others = torch.cat([self.sets.retain_parts[split] for split in SPLITS])
        held_out = {name: self.sets.concepts[name].part(r) for name, r in rows.items()}
        sets = unlabelled.task_sets(held_out, self.sets.retain.part(others), self.sets.classes)
        first = torch.cat([torch.arange(len(r)) < len(self.sets.parts[n]["validation"]) for n, r in rows.items()])
        of_retain = torch.arange(len(others)) < len(self.sets.retain_parts["validation"])
        validation = {NAMES: first, AGREEMENT: of_retain, PAIRS: of_retain}
        for name, (pictures, templates) in self.labelled.items():
            sets.append(TaskSet(name, "class", pictures, templates or zeroshot.object_templates()))
            validation[name] = validation_mask(pictures, self.wanted.seed)
        evaluation = Evaluation(self.clip, sets, batch_size=self.wanted.eval_batch_size, cache_gb=self.wanted.cache_gb)
        return evaluation, {"validation": validation, "test": {task: ~mask for task, mask in validation.items()}}

    def evaluators(self, name: str) -> dict[str, ClipEvaluator]:
        """{split: ClipEvaluator} of a name. SlugError where every retain picture is taken for it."""
        evaluation, masks = self._tasks
        target = Target(name, unlabelled.CONCEPT, NAMES, self.names.index(name))
        left_out, seed = unlabelled.own_labels(evaluation, target), self.wanted.seed
        rule = selection.Rule(self.wanted.max_forget, self.wanted.sigmas)
        how: dict[str, Any] = {"seed": seed, "left_out": left_out, "rule": rule}
        choosing = {"limit": self.wanted.select_pictures, "trace": self.wanted.trace}
        more: dict[str, dict[str, Any]] = {"validation": choosing, "test": {}}
        found = {s: ClipEvaluator(evaluation, target, None, masks[s], **more[s], **how) for s in SPLITS}
        for split, evaluator in found.items():
            if not len(evaluator.retain_rows[AGREEMENT]):
                raise SlugError(
                    f"the unedited model calls every retain picture of the {split} split {name}, so retention "
                    "cannot be measured; give classes that it knows, or pairs of other things to retain"
                )
        return found

    # ------------------------------------------------------------------------------------------------------------ a name

    def run(self, name: str) -> Forgotten:
        """Forget one name: search, choose on the validation split, report on the test split."""
        evaluation, started = self._tasks[0], time.perf_counter()
        evaluators = self.evaluators(name)
        target = evaluators["test"].target
        self._check_known(name, evaluators)
        found, ranked = self.passes.run(name, evaluators["validation"])
        best, searched = found.winner, time.perf_counter()
        assert best is not None  # every candidate of a CLIP may be kept
        near = unlabelled.neighbours(evaluation, target)
        splits, shown = self._report(evaluators, best.edit, near)
        self._check_forgotten(name, best, splits)
        changes = best.edit.changes
        record = {
            "name": name,
            "method": self.method.name,
            "model": self.label,
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
            "neighbours": [self.sets.classes[i] for i in near],
            "sets": self.sets.counts(name),
            "labelled": list(self.labelled),
            "notes": self.sets.notes[name],
            "read_s": self.read_s,
            "search_s": searched - started,
            "seconds": self.read_s + time.perf_counter() - started,
            "protocol": protocols.OURS.name,
            "rule": {"max_forget": self.wanted.max_forget, "sigmas": self.wanted.sigmas},
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
            found = evaluator.evaluation.tasks[task]
            wrong = found.guessed[rows[order]] != found.pictures.labels[rows[order]]
            chosen = rows[order][wrong.int().argsort(stable=True)][:count]  # those that the unedited model recognises first
            images.append(found.pictures.images[chosen])
            own += [task == NAMES] * len(chosen)
            said += looks.first_answers(evaluator.evaluation, task, chosen)
        return Shown(torch.cat(images), own, said, said)

    # ------------------------------------------------------------------------------------------------------------ notes

    def _check_known(self, name: str, evaluators: Mapping[str, ClipEvaluator]) -> None:
        """A note where the unedited model recognises less than half of the held-out pictures by the name."""
        rows = torch.cat([e.forget_rows for e in evaluators.values()])
        evaluation = self._tasks[0]
        hits = int((evaluation.ranks(NAMES, rows) < 1).sum())
        if hits >= KNOWN * len(rows):
            return
        said = ", ".join(f"{answer} ({share:.0%})" for answer, share in unlabelled.answers(evaluation, rows))
        self.sets.note(
            name,
            f"the unedited model recognises {hits} of {len(rows)} held-out pictures as {name}: there is little to forget, "
            f"or the name is not what the model calls them; it says {said}",
        )

    def _check_forgotten(self, name: str, best: Candidate, splits: Mapping[str, Any]) -> None:
        """A note where nothing was forgotten."""
        before, after = (splits["test"][state] for state in (ORIGINAL, self.method.name))
        n = before["n_forget"]
        if before["forget_acc1"] <= self.wanted.max_forget:
            self.sets.note(
                name,
                f"nothing was forgotten: the unedited model recognised {before['forget_recognised']} of {n} "
                "test pictures before",
            )
        elif not best.forgotten:
            self.sets.note(
                name,
                f"nothing was forgotten by the rule: no step brought recognition on the validation split to "
                f"{100 * self.wanted.max_forget:g}% with margins {self.wanted.sigmas:g} deviations below 0; the edit is the "
                "one that came nearest. Try more fronts",
            )
        elif after["forget_acc1"] > self.wanted.max_forget:
            low, high = statistics.interval(after["forget_recognised"], n)
            self.sets.note(
                name,
                f"on the test split {after['forget_recognised']} of {n} pictures are still recognised "
                f"({low:.0%} to {high:.0%}), although none was on the validation split",
            )


def forget_each(
    model: Clip | HostModel,
    concepts: Mapping[str, Source],
    retain: Source,
    evaluate: Mapping[str, str],
    *,
    wanted: Wanted = STANDARD,
    **how: Any,
) -> dict[str, Forgotten]:
    """What comes out for each name, on a CLIP or on the CLIP of each tower of a host model.

    Args:
        concepts, retain: as for Forgetting, and so are `wanted` and `how`.
        evaluate: {name: path} of labelled sets.
    """
    towers: Mapping[str, Clip | HostModel] = model.towers if isinstance(model, HostModel) else {"": model}
    done = {}
    for tower, part in towers.items():
        clip, host = (part.clip, part) if isinstance(part, HostModel) else (part, None)
        reading: dict[str, Any] = {"workers": wanted.workers, "seed": wanted.seed}
        sets = {name: labelled.load(path, clip.transform, **reading) for name, path in evaluate.items()}
        work = Forgetting(clip, concepts, retain, labelled=sets, wanted=wanted, host=host, **how)
        found = {name: work.run(name) for name in work.names}
        together = work.together({name: f.edit for name, f in found.items()}) if len(found) > 1 else {}
        done[tower] = {name: replace(f, record=f.record | {"together": together}) for name, f in found.items()}
    names = list(next(iter(done.values())))
    return {name: _joined({tower: found[name] for tower, found in done.items()}, model.label) for name in names}


def _joined(found: Mapping[str, Forgotten], label: str) -> Forgotten:
    """What came out for one name on each tower of a host model (HostModel.towers), as one edit of the host of this label.

    Names in the edit begin with the tower; its record has the towers' records under "towers".
    """
    if list(found) == [""]:
        return found[""]
    edits = [
        Edit({f"{tower}.{n}": c for n, c in f.edit.changes.items()}, f"{tower}.{f.edit.layer}", f.edit.step)
        for tower, f in found.items()
    ]
    whole, records = total(edits), {tower: f.record for tower, f in found.items()}
    first = next(iter(records.values()))
    record = {
        **{k: first[k] for k in ("name", "method", "settings", "versions")},
        "model": label,
        "layer": whole.layer,
        "step": whole.step,
        "chosen": [(e.layer, e.step) for e in edits],
        "forgotten": all(r["forgotten"] for r in records.values()),
        "seconds": sum(r["seconds"] for r in records.values()),
        "notes": [note for r in records.values() for note in r["notes"]],
        "towers": records,
    }
    return Forgotten(whole, record, {tower: f.shown for tower, f in found.items()})


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without values that were not evaluated."""
    return {k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
