"""SLUG and the baselines on a pipeline, concept after concept: search, choose, write (b2_unlearn_sd.py)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slug import cli, files, methods, progress, protocols, system
from slug.artifacts import adapters, canvas_records, cards, deltas, records
from slug.artifacts.gradient_files import GradientFiles
from slug.artifacts.records import Record
from slug.core import gradients, layers, losses, preconditioning, selection, slug
from slug.core.edit import Edit
from slug.core.layers import Layer
from slug.core.search import Found, Plan, Schedule
from slug.core.selection import Candidate
from slug.data.names import plain_name
from slug.data.pairs import load_pairs, saying, some
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_prompts import Concept
from slug.evaluation.unlearncanvas import CanvasEvaluator
from slug.experiments.pipeline_setup import Canvas
from slug.methods import PipelineMaterial, grids
from slug.models.canonical import ALONE
from slug.reports import pipelines as report
from slug.reports import plots
from slug.settings import ForgetPipeline, Sources

# These change no result, or are in the record by another name.
NOT_SETTINGS = ("force", "part", "style", "object", "device", "workers", "result_dir", "celeb_name")
# A pipeline forgets only at steps far beyond a tenth of the weights' norm: 1, 4, 16, 64 times that, then bisected.
REACH = Schedule(growth=4, far=64, below=False)
# The published search begins at 4 times that, and its bracket ends at 10 times its first step.
BRACKET = Schedule(rule="bracket", far=10, scale=4)
GROW = 4  # half decades beyond a baseline's grid, at most, while the best setting is at its end
FIRST_SEED = 6000  # of the pictures that a baseline is trained on; neither split has these seeds


@dataclass(frozen=True)
class Outcome:
    """What a method came to on one concept.

    Attributes:
        best: the candidate that was chosen, or the unedited pipeline.
        edit: of all rounds.
        chosen: (layer, step) of each round; of a baseline (setting, number of the candidate).
        figures: columns of the record that only some methods have.
        ranked: importance and alignment of all layers, for the plot; none where the method ranks no layers.
    """

    candidates: list[Candidate]
    best: Candidate
    edit: Edit
    chosen: list[tuple[str, float]]
    figures: dict[str, Any] = field(default_factory=dict)
    ranked: list[Layer] = field(default_factory=list)


def run(settings: ForgetPipeline) -> None:
    """Forget every concept of the settings; valid records are kept."""
    canvas = Canvas(settings.run, settings.pipeline, settings.judging, settings.select)
    asked = canvas_prompts.concepts(settings.concepts) or canvas_prompts.to_forget(canvas.requests, settings.run.rules)
    sources = Sources(celeb_name=tuple(c.name for c in asked), tar_dir=settings.tar_dir, train_data=settings.train_data)
    how: dict[str, Any] = {"encoder": canvas.pipeline.encoder, "flags": cli.values(settings.run, settings.pipeline)}
    how |= {"protocol": settings.run.rules}
    found = GradientFiles(canvas.pipeline.clip, sources, settings.run.result_dir, settings.batch_size, **how)
    whole = Forgetting(settings, canvas, found)
    part = cli.part_of(settings.part, asked)
    for concept in part if not settings.force else ():
        whole.check_apart(concept)
    made = []
    for concept in part:
        made.append(whole.record(concept))
        print(report.one_line(made[-1]))
    if records.ending(made):
        print(records.ending(made))


class Forgetting:
    """A method on the concepts of a pipeline."""

    def __init__(self, settings: ForgetPipeline, canvas: Canvas, gradient_files: GradientFiles) -> None:
        self.settings, self.canvas, self.files = settings, canvas, gradient_files
        self.pipeline, self.method = canvas.pipeline, methods.get(settings.method)
        self.variant = self.method.variant

    @property
    def first(self) -> "Forgetting":
        """The first round alone, a method of its own."""
        return Forgetting(replace(self.settings, rounds=1, force=False), self.canvas, self.files)

    def stem(self, concept: Concept) -> Path:
        """Path of a concept's files, without their endings."""
        name = canvas_records.file_stem(self.pipeline.tag, self.settings.label, *concept)
        return self.canvas.results / "sd" / name

    def path(self, concept: Concept, end: str = ".json") -> Path:
        """Path of one of a concept's files, by default its record."""
        return self.stem(concept).with_name(self.stem(concept).name + end)

    def check_apart(self, concept: Concept) -> None:
        """SlugError where a record that this run would replace was made with other prompts or another judge."""
        for method in (self, self.first) if self.settings.rounds > 1 else (self,):
            asked = self.canvas.marks["prompts_hash"], self.settings.select, self.settings.run.protocol
            canvas_records.check_apart(method.path(concept), *asked)
            records.check_weights(method.path(concept), "weights_hash", self.canvas.weights_hash)

    def inputs(self, concept: Concept) -> dict[str, Any]:
        """What a record depends on."""
        settings = cli.flat(self.settings, NOT_SETTINGS) | cli.flat(self.files.sources, NOT_SETTINGS)
        found = {**self.canvas.marks, "versions": cli.versions(), "settings": settings}
        if self.method.searched:
            return found | self.files.hashes(concept.name, self.variant)
        return found | {"asked_grid": [*self.method.grid, GROW]}

    def record(self, concept: Concept) -> Record:
        """The valid record of a concept, else the record of a new search."""
        before = self.first.record(concept) if self.settings.rounds > 1 else None
        inputs = self.inputs(concept)
        found = None if self.settings.force else records.valid(self.path(concept), inputs)
        return found or self.forget(concept, before, inputs)

    def forget(self, concept: Concept, before: Record | None, inputs: dict[str, Any]) -> Record:
        """Search, choose and write one concept.

        Args:
            before: the record of the first round, which further rounds go on from.
        """
        settings, device = self.settings, self.canvas.device
        evaluator = CanvasEvaluator(
            self.pipeline,
            self.canvas.judge,
            self.canvas.requests,
            concept,
            wanted=settings.rounds_wanted if before else settings.wanted,
            keep=settings.keep,
            others=settings.select_others,
            seed=settings.run.seed,
            protocol=settings.run.rules,
        )
        if said := report.unknown(plain_name(concept.name), evaluator.start.scores["UA"]):
            print(f"warning: {said}; what is not drawn in the first place counts as forgotten")
        system.reset_peak_memory(device)
        started, gradient_s = time.perf_counter(), 0.0
        if self.method.searched:
            outcome = self.further_rounds(evaluator, before) if before else self.first_round(evaluator)
            gradient_s = self.files.seconds(concept.name, self.variant)
        else:
            outcome = self.baseline(evaluator)
        seconds = time.perf_counter() - started + (before["seconds"] if before else gradient_s)
        record = {
            "method": settings.label,
            "kind": concept.kind,
            "name": plain_name(concept.name),
            "pipeline": self.pipeline.tag,
            "protocol": settings.run.protocol,
            "points": protocols.values(settings.run.rules, canvas=True),
            **self.write(evaluator, outcome),
            "weights_hash": self.canvas.weights_hash,
            **self.verdict(evaluator, outcome),
            "seconds": seconds,
            "gradient_s": gradient_s,
            "peak_mem_mb": system.peak_memory_mb(device),
            **inputs,
        }
        files.write_json(self.path(concept), record)
        return record

    def verdict(self, evaluator: CanvasEvaluator, outcome: Outcome) -> dict[str, Any]:
        """Whether the concept was forgotten, as the record says it."""
        n = len(evaluator.own)
        known = {"validation": (round((1 - evaluator.start.scores["UA"]) * n), n)}
        rule, forgotten = f"UA at least {outcome.best.scores['wanted']:g}", outcome.best.forgotten
        return {"forgotten": forgotten, "caveat": records.caveat(known, forgotten, rule)}

    # ---------------------------------------------------------------------------------------------------------- search

    def first_round(self, evaluator: CanvasEvaluator) -> Outcome:
        """SLUG along the gradients on disk."""
        loaded = self.files.load(evaluator.concept.name, self.variant)
        found, ranked = self.one_layer(evaluator, loaded.forget, loaded.retain, evaluator.start)
        best = found.winner or evaluator.start
        chosen = [(best.layer, best.step)] if best is not evaluator.start else []
        return Outcome(found.candidates, best, best.edit, chosen, ranked=ranked)

    def further_rounds(self, evaluator: CanvasEvaluator, before: Record) -> Outcome:
        """One more layer in each round, along gradients at the weights of the round before, until a candidate forgets."""
        row = before["winner_validation"]
        best = evaluator.candidate(Edit({}, row["layer"], row["step"]), row)
        edit, chosen, candidates = self.canvas.edit(before), [tuple(c) for c in before["chosen"]], []
        name, left_out = evaluator.concept.name, self.files.load(evaluator.concept.name, self.variant).left_out
        while chosen and len(chosen) < self.settings.rounds and not best.forgotten:
            with edit.applied(self.pipeline), edit.applied(self.pipeline.clip):
                found, _ = self.one_layer(evaluator, *self.gradients_now(name, left_out), best)
            candidates += found.candidates
            if found.winner is None or found.winner is best:
                break
            best = found.winner
            edit = edit + best.edit
            chosen.append((best.layer, best.step))
        return Outcome(candidates, best, edit, chosen)

    def one_layer(
        self, evaluator: CanvasEvaluator, forget: slug.Gradient, retain: slug.Gradient, best: Candidate
    ) -> tuple[Found, list[Layer]]:
        """Search Pareto front after Pareto front at the present weights until a step forgets, or take --layer and --step.

        Args:
            best: the candidate to beat.
        """
        clip, settings = self.pipeline.clip, self.settings
        ranked = layers.figures(clip, forget, retain, self.pipeline.candidates())
        if settings.layer:
            if settings.layer.removesuffix(ALONE) not in {layer.name for layer in ranked}:
                some_layers = f"{ranked[0].name}, {ranked[-1].name}"
                raise SlugError(f"SLUG may not edit a layer {settings.layer!r} here; it may edit e.g. {some_layers}")
            edit = Edit.along(clip, settings.layer, forget, settings.step)
            taken = evaluator.score(edit, best, log_all=True)
            return Found({settings.layer: [taken]}, taken), ranked
        rules, whole = settings.run.rules, settings.whole_groups or settings.run.rules.canvas_whole_groups
        schedule = replace(BRACKET if rules.canvas_rule == BRACKET.rule else REACH, evaluations=settings.evaluations)
        plan = Plan(fronts=settings.fronts, choose=rules.choose, alone=not whole, schedule=schedule)
        with progress.bar(desc=f"{evaluator.concept.name}: candidates", unit="candidate") as bar:

            def settled(best: Candidate | None) -> bool:
                bar.update()
                return evaluator.settled(best)

            how: Any = {"enough": lambda best: best.forgotten, "best": best, "settled": settled}
            return slug.front_by_front(clip, evaluator, ranked, forget, plan, **how), ranked

    def gradients_now(self, name: str, left_out: Sequence[str]) -> tuple[slug.Gradient, slug.Gradient]:
        """(forget, retain gradient) of the CLIP at its present weights, as b1 computes them at the original ones.

        Args:
            left_out: names whose pairs are no retained pairs.
        """
        clip, variant, workers = self.pipeline.clip, self.variant, self.settings.run.workers
        how: dict[str, Any] = {"batch_size": self.settings.batch_size, "encoder": self.pipeline.encoder}
        mode: dict[str, Any] = {"protocol": self.settings.run.rules}
        own = load_pairs(self.files.tar(name), clip.transform, workers=workers)
        every = load_pairs(self.files.retain_tar, clip.transform, workers=workers)
        rest = some(every, saying(every, left_out, says=False))
        forget, _ = gradients.compute(clip, own, losses.forget(variant), desc=f"{name}: forget gradient", **how, **mode)
        retain, _ = gradients.compute(clip, rest, losses.contrastive, desc=f"{name}: retain gradient", **how, **mode)
        if variant.preconditioned:
            held = {"": every}
            for other in self.files.spared(name, variant):
                held[other] = load_pairs(self.files.tar(other), clip.transform, workers=workers)
            how |= {"padded": True}  # a pipeline reads what stands behind a text's end
            sums = {n: preconditioning.moments(clip, p, desc=f"{name}: layer inputs", **how) for n, p in held.items()}
            forget = preconditioning.preconditioned(forget, preconditioning.retained(clip, held, sums, name, **how))
        return forget, retain

    def baseline(self, evaluator: CanvasEvaluator) -> Outcome:
        """A baseline over its grid, which grows while the best setting lies at an end."""
        method, start = self.method, evaluator.start
        assert method.candidates is not None
        neutral = {r.prompt: evaluator.concept.left_out_of(r) for r in evaluator.own}
        others, seeds = list(dict.fromkeys(r.prompt for r in evaluator.others)), range(FIRST_SEED, FIRST_SEED + len(neutral))
        material = PipelineMaterial([*neutral], [*neutral.values()], others, [*seeds], self.settings.run.seed)
        best, candidates = start, []
        tried: dict[str, float] = {}  # {name of a setting: setting}

        def chosen() -> Sequence[float]:
            return [tried[best.layer]] if best is not start else []

        for setting in grids.growing(method.grid, GROW, chosen):
            made = method.candidates(self.pipeline, material, setting)
            for edit in progress.bar(made, desc=f"{evaluator.concept.name}: {method.name} {setting:g}", unit="candidate"):
                tried[edit.layer] = setting
                candidate = evaluator.score(edit, best)
                best = selection.winner([best, candidate]) or start
                # Without its tensors: a baseline's edit may be as large as the UNet.
                candidates.append(replace(candidate, edit=replace(edit, changes={})))
        grid = sorted(tried.values())
        figures = {"grid": grid, "inside_grid": grids.inside(grid, *chosen()) if best is not start else None}
        return Outcome(candidates, best, best.edit, [(best.layer, best.step)] if best is not start else [], figures)

    # ----------------------------------------------------------------------------------------------------------- files

    def write(self, evaluator: CanvasEvaluator, outcome: Outcome) -> dict[str, Any]:
        """Write the candidates, the delta, its adapter and the Pareto plot; returns what the record says of them."""
        concept, edit = evaluator.concept, outcome.edit
        stem, name = self.stem(concept), plain_name(concept.name)
        if outcome.ranked:
            title = f"{name}: text encoder of {self.pipeline.tag}"
            marked = outcome.chosen[0][0].removesuffix(ALONE) if outcome.chosen else None
            plots.pareto(
                outcome.ranked, layers.pareto_front(outcome.ranked), marked, title, stem.with_name(f"{stem.name}-pareto")
            )
        written = records.write_search(
            stem,
            self.pipeline,
            edit,
            method=self.settings.label,
            name=name,
            chosen=outcome.chosen,
            start=evaluator.start,
            candidates=outcome.candidates,
            best=outcome.best,
            counts={"n_forget": len(evaluator.own), "n_retain": len(evaluator.others)},
            columns=[("seeds", " ".join(str(s) for s in sorted({r.seed for r in evaluator.own})))],
        )
        other_seeds = " ".join(str(r.seed) for r in evaluator.others)
        adapter = self.write_adapter(concept, edit) if self.method.searched and adapters.fits(edit.changes) else None
        return {**written, **outcome.figures, "lora": adapter, "other_seeds": other_seeds}

    def write_adapter(self, concept: Concept, edit: Edit) -> dict[str, Any]:
        """Write an edit of linear layers as a LoRA adapter for diffusers; returns what the record says of it."""
        delta = self.path(concept, ".delta.safetensors")
        factors = adapters.adapter(edit.changes, self.settings.lora_residual)
        header = deltas.read(delta)[1]
        license = cards.license_of(self.pipeline.origin)
        file = adapters.save(self.path(concept, "-lora"), factors, self.pipeline.tag, (delta.name, header), license)
        return {
            "folder": file.parent.name,
            "bytes": file.stat().st_size,
            "ranks": [f.rank for f in factors.values()],
            "residuals": [f.residual for f in factors.values()],
        }
