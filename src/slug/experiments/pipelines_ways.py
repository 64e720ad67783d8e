"""Ways in which a pipeline forgets several concepts at once; the settings of each are chosen on the validation split."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from slug import files, methods, progress
from slug.artifacts import canvas_records, deltas, records
from slug.artifacts.records import Record
from slug.core import preconditioning
from slug.core.edit import Edit, total
from slug.core.selection import Candidate, winner
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.canvas_groups import GroupEvaluator, column
from slug.evaluation.canvas_prompts import Concept, Request
from slug.experiments import pipelines_joint
from slug.experiments.pipeline_setup import Canvas
from slug.experiments.pipelines import FIRST_SEED
from slug.methods import PipelineMaterial, grids
from slug.schema import WAYS

SUM, ASSIGNED, JOINT = WAYS
WEIGHTS = (10.0, 100.0, 1000.0)  # of the concepts' own inputs in the joint system
LONGER, TIMES = 1.5, 4  # the part of a concept that is not forgotten grows by this factor, so many times at most
TRIED = 6  # assignments to layers, judged as sums
OWN, OTHERS = 18, 60  # pictures of each concept and of none that choose, at most
GROW = 2  # half decades beyond a rival's grid, at most, while the best setting is at its end
NOTHING = "nothing, as no edit kept enough"  # the setting where no candidate is kept


@dataclass(frozen=True, eq=False)
class Trial:
    """A way with one setting.

    Attributes:
        setting: in words.
        parts: {concept: its part of the edit}; none where the edit has no parts.
        edit: the whole edit.
        fails: {concept: why the choice on the validation split does not forget it}, in words.
    """

    setting: str = ""
    parts: Mapping[Concept, Edit] = field(default_factory=dict)
    edit: Edit = field(default_factory=Edit)
    fails: Mapping[Concept, str] = field(default_factory=dict)

    @classmethod
    def of(cls, setting: str, parts: Mapping[Concept, Edit]) -> "Trial":
        """The sum of parts."""
        return cls(setting, parts, total(parts.values()))

    def without(self, concept: Concept) -> Edit:
        """The edit with one concept reverted: the sum of the other parts."""
        return total(part for c, part in self.parts.items() if c != concept)

    def scaled(self, concepts: Sequence[Concept], factor: float) -> "Trial":
        """The parts of some concepts times a factor."""
        grown = {c: p.scaled(factor) if c in concepts else p for c, p in self.parts.items()}
        return Trial.of(f"{self.setting}; {', '.join(c.plain.name for c in concepts)} x {factor:g}", grown)


Best = Callable[[], tuple[Trial, Candidate] | None]  # the best trial so far, and what it scored


class Ways:
    """What a method found for each concept, put together in several ways, and rivals that forget all at once."""

    def __init__(self, canvas: Canvas, found: Mapping[Concept, Record], method: str) -> None:
        """
        Args:
            found: the method's record of each concept.
        """
        self.canvas, self.records, self.method = canvas, found, method
        self.edits = {c: canvas.edit(r) for c, r in found.items()}
        self.folder = canvas.results / "sd" / "together"
        how = next(iter(found.values()))["settings"]
        self.wanted, self.keep = how["wanted"], how["keep"]

    def trials(self, way: str, group: Sequence[Concept], best: Best) -> Iterator[Trial]:
        """Everything that a way tries.

        Args:
            best: see Best.
        """
        if way == SUM:
            yield Trial.of("", {c: self.edits[c] for c in group})
        elif way == ASSIGNED:
            yield from itertools.islice(self._assigned(group), TRIED)
        elif way == JOINT:
            chosen = {c: self.records[c] for c in group}
            gradient_files = pipelines_joint.gradient_files(self.canvas, chosen)
            system = pipelines_joint.JointSystem(self.canvas, gradient_files, group)
            for weight in WEIGHTS:
                yield Trial.of(f"weight {weight:g}", system.parts({c: self.edits[c] for c in group}, weight))
            before = None
            for _ in range(TIMES):
                now = best()
                behind = [c for c in group if now and now[1].scores[column(c)] < self.wanted]
                if now is None or not behind or now[0] is before:  # longer parts were no better: they would be tried again
                    return
                before = now[0]
                yield before.scaled(behind, LONGER)
        else:
            yield from self._rival(methods.get(way), group, best)

    def _assigned(self, group: Sequence[Concept]) -> Iterator[Trial]:
        """Edits of single steps that the searches evaluated, no two of which share a tensor; those that reach and retain
        most come first."""
        gradient_files = pipelines_joint.gradient_files(self.canvas, {c: self.records[c] for c in group})
        clip, variant = self.canvas.pipeline.clip, methods.get(self.method).variant
        gradients = {c: gradient_files.load(c.name, variant).forget for c in group}
        choices = {c: layer_choices(self._steps(c)) for c in group}
        edits: dict[tuple[Concept, str], Edit] = {}
        for concept, own in choices.items():
            for row in own:
                edits[concept, row["layer"]] = Edit.along(clip, row["layer"], gradients[concept], row["step"])
        for rows in assignments(choices, {k: frozenset(e.changes) for k, e in edits.items()}):
            parts = {c: edits[c, row["layer"]] for c, row in zip(choices, rows, strict=True)}
            yield Trial.of("; ".join(f"{r['layer']} {r['step']:.4g}" for r in rows), parts)

    def _steps(self, concept: Concept) -> pd.DataFrame:
        """The candidates of a concept's search."""
        stem = canvas_records.stem_of(self.records[concept])
        return pd.read_csv(self.canvas.results / "sd" / f"{stem}-steps.csv")

    def _rival(self, method: methods.Method, group: Sequence[Concept], best: Best) -> Iterator[Trial]:
        """A baseline on all concepts at once, over its grid."""
        make = method.several or method.candidates
        assert make is not None
        drawn, tried = material(self.canvas, group), dict[str, float]()

        def taken() -> Sequence[float]:
            return [tried[now[0].setting]] if (now := best()) else []

        for setting in grids.growing(method.several_grid or method.grid, GROW, taken):
            for edit in make(self.canvas.pipeline, drawn, setting):
                tried[edit.layer] = setting
                yield Trial(edit.layer, {}, edit)

    # ------------------------------------------------------------------------------------------------------------ choice

    def chosen(self, way: str, group: Sequence[Concept]) -> Trial | None:
        """The best trial of a way on the validation split, kept on disk for later runs; the plain sum is taken as it is.
        None where the way has nothing to try."""
        if way == SUM:
            return next(self.trials(way, group, lambda: None))
        path = self.folder / f"{self.stem(way, group)}.json"
        inputs = self.inputs(way, group)
        record = records.valid(path, inputs)
        if record and all((path.parent / file).is_file() for file in record["deltas"]):
            return self._read(record, group)
        how: dict[str, Any] = {"wanted": self.wanted, "keep": self.keep, "own": OWN, "others": OTHERS}
        validation = self.canvas.split("validation")
        evaluator = GroupEvaluator(
            self.canvas.pipeline, self.canvas.judge, validation, group, **how, seed=self.canvas.run.seed
        )
        best: list[tuple[Trial, Candidate]] = []  # at most one
        rows = []
        tried = self.trials(way, group, lambda: best[0] if best else None)
        for trial in progress.bar(tried, desc=f"{way}, {len(group)} concepts", unit="edit"):
            candidate = evaluator.score(trial.edit, best[0][1] if best else None)
            rows.append({"setting": trial.setting, **candidate.scores})
            if winner([*(b[1] for b in best), candidate]) is candidate:
                best[:] = [(trial, candidate)]
            if best and evaluator.settled(best[0][1]):
                break
        if not rows:
            return None
        nothing = Trial(NOTHING, {c: Edit() for c in group}), evaluator.start
        taken, scores = best[0] if best else nothing
        self._write(path, way, taken, evaluator, scores, rows, inputs)
        return replace(taken, fails=self._fails(taken.setting, rows, group))

    def _fails(self, setting: str, tried: Sequence[Mapping[str, Any]], group: Sequence[Concept]) -> dict[Concept, str]:
        """{concept: why the choice of a setting does not forget it on the validation split}."""
        if setting == NOTHING:
            return dict.fromkeys(group, f"nothing was forgotten: {NOTHING.partition(', as ')[2]} on the validation split")
        row = next(r for r in tried if r["setting"] == setting)
        said = "not forgotten on the validation split: UA {:.0%}, where {:.0%} is asked for"
        return {c: said.format(ua, self.wanted) for c in group if (ua := row[column(c)]) < self.wanted - 1e-9}

    def stem(self, way: str, group: Sequence[Concept]) -> str:
        """Name of the files of a way on a group, without their endings."""
        names = "-".join(files.name_stem(c.name) for c in group)
        if len(names) > 80:  # of a file's name
            names = f"{len(group)}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
        return f"{self.canvas.pipeline.tag}-{self.method}-{way}-{names}"

    def inputs(self, way: str, group: Sequence[Concept]) -> dict[str, Any]:
        """What the choice depends on."""
        found: dict[str, Any] = {**self.canvas.marks, "way": way, "concepts": [[c.kind, c.plain.name] for c in group]}
        found |= {"seed": self.canvas.run.seed, "wanted": self.wanted, "keep": self.keep, "pictures": [OWN, OTHERS]}
        if way in WAYS:
            found["edits"] = {c.plain.name: files.file_hash(self.canvas.delta(self.records[c])) for c in group}
            found["retain_hash"] = [self.records[c].get("retain_hash") for c in group]
            system = pipelines_joint.PROMPTS, pipelines_joint.RETAINED, preconditioning.DAMPING
            found["constants"] = [*WEIGHTS, LONGER, TIMES, TRIED, *system]
        return found

    def _write(
        self,
        path: Path,
        way: str,
        taken: Trial,
        evaluator: GroupEvaluator,
        best: Candidate,
        rows: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> None:
        """The record of a choice and its deltas: one for each part, or one for an edit without parts."""
        group = list(evaluator.own)
        parts = {c: (c.plain.name, [o.plain.name for o in group if o != c], p) for c, p in taken.parts.items()}
        every = ", ".join(c.plain.name for c in group)
        written = []
        for concept, (name, others, edit) in (parts or {group[0]: (every, [], taken.edit)}).items():
            file = path.with_name(f"{path.stem}-of-{files.name_stem(name) if parts else 'all'}.delta.safetensors")
            figures: dict[str, Any] = {"method": self.method if parts else way, "split": "validation"}
            if parts:
                own = len(evaluator.own[concept])
                figures |= {"UA": best.scores[column(concept)], "n_forget": own, "together_with": others}
            layer, pipeline = edit.layer or taken.setting, self.canvas.pipeline
            deltas.save(file, pipeline, edit.changes, name=name, layer=layer, step=edit.step, metrics=figures)
            written.append(file.name)
        record = {**inputs, "setting": taken.setting, "deltas": written, "parts": bool(parts), "tried": rows}
        files.write_json(path, record)

    def _read(self, record: Record, group: Sequence[Concept]) -> Trial:
        """The trial of a record."""
        read = [Edit(dict(deltas.of_model(self.canvas.pipeline, self.folder / file))) for file in record["deltas"]]
        if record["parts"]:
            trial = Trial.of(record["setting"], dict(zip(group, read, strict=True)))
        else:
            trial = Trial(record["setting"], {}, read[0])
        return replace(trial, fails=self._fails(trial.setting, record["tried"], group))


def check(ways: Sequence[str], name: str) -> None:
    """SlugError where a way cannot put the edits of a method together: a baseline edits what has no inputs in the
    text tower, and later rounds step along other gradients."""
    method = methods.get(name)
    lacks = next((w for w in ways if w in (ASSIGNED, JOINT) and not method.searched), None)
    lacks = lacks or (ASSIGNED if ASSIGNED in ways and method.rounds else None)
    if lacks:
        raise SlugError(
            f"--ways {lacks} needs the single steps of a search of SLUG, which {name} does not take; give another --method, "
            "or --ways sum"
        )


def layer_choices(steps: pd.DataFrame) -> list[dict[str, Any]]:
    """The best candidate of each layer among those that kept IRA and CRA above their floors, the best layer first.

    Args:
        steps: a search's candidates, as b2_unlearn_sd.py writes them.
    """
    kept = steps[(steps["kept"].astype(str) == "True") & steps["layer"].notna()].copy()
    kept["reaches"] = kept[["UA", "wanted"]].min(axis=1)
    kept["retains"] = kept[["IRA", "CRA"]].mean(axis=1)
    kept = kept.sort_values(["reaches", "retains"], ascending=False).drop_duplicates("layer")
    return [{str(k): v for k, v in row.items()} for row in kept.to_dict("records")]


def assignments(
    choices: Mapping[Concept, Sequence[dict[str, Any]]], tensors: Mapping[tuple[Concept, str], frozenset[str]]
) -> list[tuple[dict[str, Any], ...]]:
    """All ways to give each concept one of its layers so that no two move a tensor in common, the best first.

    Args:
        choices: {concept: `layer_choices`}.
        tensors: {(concept, layer): names of what it moves}.
    """
    most = 8  # layers of each concept: beyond, the number of ways grows without a gain
    found = []
    for rows in itertools.product(*(own[:most] for own in choices.values())):
        moved = [tensors[c, row["layer"]] for c, row in zip(choices, rows, strict=True)]
        if sum(map(len, moved)) == len(frozenset().union(*moved)):
            found.append(rows)
    return sorted(found, key=lambda rows: (-sum(r["reaches"] for r in rows), -sum(r["retains"] for r in rows)))


def material(canvas: Canvas, group: Sequence[Concept]) -> PipelineMaterial:
    """What a baseline may use to forget a group: the validation split's prompts, those of each concept with what they are to
    become, which names no concept of the group."""
    asked = canvas.split("validation")
    found: dict[tuple[str, str], str] = {}
    for concept in group:
        for r in (r for r, mine in zip(asked, concept.shown_by(asked), strict=True) if mine):
            found[r.prompt, plain_name(concept.name)] = neutral(r, group)
    rest = [not any(shown) for shown in zip(*(c.shown_by(asked) for c in group), strict=True)]
    others = list(dict.fromkeys(r.prompt for r, kept in zip(asked, rest, strict=True) if kept))
    seeds = list(range(FIRST_SEED, FIRST_SEED + len(found)))
    prompts, names = [prompt for prompt, _ in found], [name for _, name in found]
    return PipelineMaterial(prompts, [*found.values()], others, seeds, canvas.run.seed, names)


def neutral(request: Request, group: Sequence[Concept]) -> str:
    """The prompt of a Request without any concept of a group."""
    shown = {c.kind: c for c in group if c.shown_by([request])[0]}
    if len(shown) == 2:
        request = request._replace(object="")
        return shown["style"].left_out_of(request)
    return next(iter(shown.values())).left_out_of(request)
