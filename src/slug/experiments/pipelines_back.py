"""Whether other words, other weights or training brings back what a pipeline forgot (b4_optimised_tokens.py)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from slug import files, progress, schema
from slug.artifacts.records import Record
from slug.core.edit import Edit
from slug.evaluation import recovery
from slug.evaluation.canvas_prompts import Concept, Request
from slug.experiments.pipeline_setup import Canvas, concept_of
from slug.experiments.pipelines_tokens import judged, kept_counts

FIRST_SEED = 8000  # of the retained pictures that weights are trained on; neither split has these seeds
PICTURES = 40  # of them, at most
NAME = "its name"  # the attack that is none
Words = Mapping[str, list[tuple[str, str]]]
Count = tuple[str, str, int, int]  # attack, form, pictures that show the concept, pictures


class Attacks:
    """Everything that is tried on the edits of one pipeline, concept by concept and method by method."""

    def __init__(self, canvas: Canvas, records: Sequence[Record], words: Words, seeds: int, steps: int, rate: float) -> None:
        """
        Args:
            words: see recovery.read_words.
            seeds: test seeds of each cell that pictures are made with, the first of them.
            steps, rate: of training on retained pictures; 0 steps: none.
        """
        self.canvas, self.records, self.words, self.seeds = canvas, records, words, seeds
        self.steps, self.rate = steps, rate

    def rows(self, concept: Concept) -> list[dict[str, Any]]:
        """Rows of back.csv on a concept: of the original, and of each of its records. What was counted is kept on disk."""
        found = []
        states: dict[str, Record | None] = {schema.ORIGINAL: None}
        states |= {r["method"]: r for r in self.records if concept_of(r) == concept.plain}
        for method, record in progress.bar(states.items(), desc=f"{concept.name}: what brings it back", unit="pipeline"):
            common = {"method": method, **concept.plain._asdict(), "seed": self.canvas.run.seed}
            common["protocol"] = self.canvas.run.protocol
            for attack, form, shown, n in self._counts(concept, method, record):
                counts = {"shown": shown, "n": n, "n_black": len(self._asked(concept)) - n}
                found.append(common | {"attack": attack, "form": form} | counts)
        return found

    def _counts(self, concept: Concept, method: str, record: Record | None) -> list[Count]:
        """What was counted for a method, or is counted now, attack by attack."""
        edit, found = self.canvas.edit(record) if record else Edit(), []
        words = [list(o) for o in recovery.others(concept, dict(self.words))]
        todo: list[tuple[str, Any, Callable[[Concept, Edit], Iterator[Count]]]] = [("words", words, self._words)]
        if record:
            todo += [("weights", [*recovery.RANKS, *recovery.SHARES], self._weights)]
        if self.steps:
            todo += [("training", [self.steps, self.rate, PICTURES], self._training)]
        for attack, how, count in todo:
            how = {"how": how, "seeds": self.seeds, "seed": self.canvas.run.seed}
            kept, inputs = kept_counts(self.canvas, concept, method, record, attack, how)
            counts = kept.counts
            if counts is None:
                counts = [list(c) for c in count(concept, edit)]
                files.write_json(kept.path, inputs | {"counts": counts})
            found += [tuple(c) for c in counts]
        return found

    def _asked(self, concept: Concept) -> list[Request]:
        """The test split's Requests that show a concept, with the first seeds of each cell."""
        test = self.canvas.split("test")
        own = [r for r, mine in zip(test, concept.shown_by(test), strict=True) if mine]
        cells: dict[tuple[str, str], list[Request]] = {}
        for r in own:
            cells.setdefault((r.style, r.object), []).append(r)
        return [r for cell in cells.values() for r in sorted(cell, key=lambda r: r.seed)[: self.seeds]]

    def _count(self, concept: Concept, prompts: Sequence[str], what: str) -> tuple[int, int]:
        """(pictures that the judge takes for the concept, pictures that are not black) under the present weights."""
        right, drawn = judged(self.canvas, self._asked(concept), prompts, what)
        return int((right[concept.kind] & drawn).sum()), int(drawn.sum())

    def _by_name(self, concept: Concept, edit: Edit, what: str) -> tuple[int, int]:
        """`_count` of the prompts as they are, with an edit."""
        with edit.applied(self.canvas.pipeline):
            return self._count(concept, [r.prompt for r in self._asked(concept)], f"{concept.name}, {what}")

    def _words(self, concept: Concept, edit: Edit) -> Iterator[Count]:
        yield NAME, "", *self._by_name(concept, edit, "by its name")
        with edit.applied(self.canvas.pipeline):
            for other in recovery.others(concept, dict(self.words)):
                prompts = other.prompts(self._asked(concept), concept.kind)
                yield other.attack, other.form, *self._count(concept, prompts, f"{concept.name}, {other.form}")

    def _weights(self, concept: Concept, edit: Edit) -> Iterator[Count]:
        for attack, form, left in recovery.weakened(edit):
            yield attack, form, *self._by_name(concept, left, f"{attack}, {form}")

    def _training(self, concept: Concept, edit: Edit) -> Iterator[Count]:
        pipeline = self.canvas.pipeline
        validation = self.canvas.split("validation")
        rest = [r.prompt for r, mine in zip(validation, concept.shown_by(validation), strict=True) if not mine]
        prompts = list(dict.fromkeys(rest))[:PICTURES]
        latents = pipeline.latents(prompts, range(FIRST_SEED, FIRST_SEED + len(prompts)))  # of the original
        how: Any = {"steps": self.steps, "rate": self.rate, "seed": self.canvas.run.seed}
        with edit.applied(pipeline):
            trained = recovery.retained(pipeline, prompts, latents, **how)
        yield "training on retained pictures", f"{self.steps} steps", *self._by_name(concept, edit + trained, "trained on")


def read_words(path: str) -> Words:
    """recovery.read_words of a flag, which may be empty."""
    return recovery.read_words(files.existing(path, "CSV of words", "give --words, or leave it out")) if path else {}


def token_rows(tokens: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of tokens.csv as rows of back.csv."""
    same = ("method", "kind", "name", "seed", "protocol")
    return [
        {k: r[k] for k in same}
        | {"attack": "optimised token", "form": "", "shown": r["by_token"], "n": r["n"], "n_black": r["n_black"]}
        for r in tokens
    ]
