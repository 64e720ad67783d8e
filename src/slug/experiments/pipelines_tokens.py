"""Whether an optimised prompt token brings back what a pipeline forgot (b4_optimised_tokens.py)."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slug import files, progress, schema
from slug.artifacts import canvas_records
from slug.artifacts import records as record_files
from slug.artifacts.records import Record
from slug.core.edit import Edit
from slug.errors import SlugError
from slug.evaluation import canvas_prompts, inversion
from slug.evaluation.canvas_classifiers import Judged
from slug.evaluation.canvas_prompts import Concept, Request
from slug.experiments.pipeline_setup import Canvas, concept_of

FIRST_SEED, TIMES = 7000, 4  # of the pictures that a token is trained on, TIMES for each cell; neither split has these seeds
START = {"style": "style", "object": "thing"}  # words from whose embeddings a token starts


def concepts(canvas: Canvas, records: Sequence[Record], asked: Sequence[Concept]) -> list[Concept]:
    """The concepts asked for, or all that have records. SlugError where one has none."""
    edited = {concept_of(r) for r in records}
    lacks = [c.name for c in asked if c.plain not in edited]
    if lacks:
        folder = canvas.results / "sd"
        raise SlugError(f"no record of {', '.join(lacks)} in {folder}; run b2_unlearn_sd.py for them first")
    return list(asked) or [c for c in canvas_prompts.concepts_of(canvas.requests) if c in edited]


def rows(canvas: Canvas, concept: Concept, records: Sequence[Record], steps: int, rate: float) -> list[dict[str, Any]]:
    """Rows of tokens.csv on a concept: of the original, and of each of its records. What was counted is kept on disk.

    A token is trained on pictures that the original makes of the concept; then the test split's prompts are drawn with the
    token in the concept's place, and with its name. A prompt counts where neither picture is black all over.

    Args:
        steps, rate: see inversion.learn.
    """
    pipeline, seed, kind = canvas.pipeline, canvas.run.seed, concept.kind
    own = [r for r, mine in zip(canvas.requests, concept.shown_by(canvas.requests), strict=True) if mine]
    test = [r for r in own if r.split == "test"]
    if not test:
        raise SlugError(f"the prompts' test split has no pictures of the {kind} {concept.name}; make other prompts")
    cells = list(dict.fromkeys(r._replace(split="validation", seed=0) for r in own))
    wanted = [r._replace(seed=FIRST_SEED + i) for i, r in enumerate(cells * TIMES)]

    @functools.cache
    def latents() -> torch.Tensor:
        return pipeline.latents([r.prompt for r in wanted], [r.seed for r in wanted])  # of the original: NaN ends the run

    training, spoken = ([inversion.prompt_with(r, kind) for r in part] for part in (wanted, test))
    states: dict[str, Record | None] = {schema.ORIGINAL: None}
    states |= {r["method"]: r for r in records if concept_of(r) == concept.plain}
    found: list[dict[str, Any]] = []
    for method, record in progress.bar(states.items(), desc=f"{concept.name}: tokens", unit="pipeline"):
        how: Any = {"steps": steps, "rate": rate, "seed": seed}
        kept, inputs = kept_counts(canvas, concept, method, record, "token", how)
        row = kept.counts
        if row is None:
            latents()  # before an edit is applied
            with (canvas.edit(record) if record else Edit()).applied(pipeline):
                what = f"{concept.name}, {method}"
                by_name = judged(canvas, test, [r.prompt for r in test], f"{what}, for its name")
                vector = inversion.learn(pipeline, training, latents(), start=START[kind], **how)
                with inversion.spoken(pipeline, vector):
                    by_token = judged(canvas, test, spoken, f"{what}, for an optimised token")
            drawn = by_name.drawn & by_token.drawn
            n, named, told = (int(x.sum()) for x in (drawn, by_name.right[kind] & drawn, by_token.right[kind] & drawn))
            row = {"n": n, "n_black": len(test) - n, "by_name": named, "by_token": told}
            files.write_json(kept.path, inputs | {"counts": row})
        common = {"method": method, **concept.plain._asdict(), "n": row["n"], "n_black": row["n_black"]}
        counts = {"by_name": row["by_name"], "by_token": row["by_token"]}
        found.append(common | counts | {"seed": seed, "protocol": canvas.run.protocol})
    return found


class Kept(NamedTuple):
    """Where something counted is kept for later runs, and the counts if they are there and valid."""

    path: Path
    counts: Any


def kept_counts(
    canvas: Canvas, concept: Concept, method: str, record: Record | None, attack: str, how: Any
) -> tuple[Kept, dict[str, Any]]:
    """(what was counted of an attack on a method's edit of a concept, what the counts depend on).

    Args:
        record: of the edit; None for the original.
        how: the settings of the attack, anything JSON can hold.
    """
    stem = canvas_records.file_stem(canvas.pipeline.tag, method, *concept.plain)
    path = canvas.results / "uncanvas" / "back" / f"{stem}-{attack}.json"
    inputs = {**canvas.marks, "edit": files.file_hash(canvas.delta(record)) if record else "", "how": how}
    found = record_files.valid(path, inputs)
    return Kept(path, found["counts"] if found else None), inputs


def judged(canvas: Canvas, asked: Sequence[Request], prompts: Sequence[str], what: str) -> Judged:
    """What the judge says of pictures of N prompts, with the seeds of N Requests, which say what they shall show."""
    images = canvas.pipeline.generate(prompts, [r.seed for r in asked], blacken=True)
    return canvas.correct(asked, images, what)
