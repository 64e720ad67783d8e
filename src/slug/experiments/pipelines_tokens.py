"""Whether an optimised prompt token brings back what a pipeline forgot (b4_optimised_tokens.py)."""

from collections.abc import Sequence
from typing import Any

from slug import progress
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
    """Rows of tokens.csv on a concept: of the original, and of each of its records.

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
    latents = pipeline.latents([r.prompt for r in wanted], [r.seed for r in wanted])  # of the original: NaN ends the run
    training, spoken = ([inversion.prompt_with(r, kind) for r in part] for part in (wanted, test))
    states = {"original": Edit()}
    states |= {r["method"]: canvas.edit(r) for r in records if concept_of(r) == concept.plain}
    found: list[dict[str, Any]] = []
    for method, edit in progress.bar(states.items(), desc=f"{concept.name}: tokens", unit="pipeline"):
        with edit.applied(pipeline):
            what = f"{concept.name}, {method}"
            by_name = judged(canvas, test, [r.prompt for r in test], f"{what}, for its name")
            how: Any = {"steps": steps, "rate": rate, "seed": seed}
            vector = inversion.learn(pipeline, training, latents, start=START[kind], **how)
            with inversion.spoken(pipeline, vector):
                by_token = judged(canvas, test, spoken, f"{what}, for an optimised token")
        drawn = by_name.drawn & by_token.drawn
        n, named, told = (int(x.sum()) for x in (drawn, by_name.right[kind] & drawn, by_token.right[kind] & drawn))
        row = {"method": method, **concept.plain._asdict(), "n": n, "n_black": len(test) - n}
        found.append(row | {"by_name": named, "by_token": told, "seed": seed, "protocol": canvas.run.protocol})
    return found


def judged(canvas: Canvas, asked: Sequence[Request], prompts: Sequence[str], what: str) -> Judged:
    """What the judge says of pictures of N prompts, with the seeds of N Requests, which say what they shall show."""
    images = canvas.pipeline.generate(prompts, [r.seed for r in asked], blacken=True)
    return canvas.correct(asked, images, what)
