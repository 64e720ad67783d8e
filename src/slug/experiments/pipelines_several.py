"""Several styles and objects forgotten at once: the sums of edits that were found one by one (b5_unlearn_multi.py)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from slug import files, progress
from slug.artifacts.records import Record
from slug.core.edit import total
from slug.data.canvas import KINDS
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import statistics, unlearncanvas
from slug.evaluation.canvas_classifiers import Judged
from slug.evaluation.canvas_prompts import OTHER, Concept, Request
from slug.experiments.pipeline_setup import Canvas, concept_of
from slug.reports import caveats


def groups(concepts: Sequence[Concept]) -> list[list[Concept]]:
    """What is forgotten together: of each kind the first 2, 3, ... concepts, and all of them where there are both kinds."""
    found = []
    for kind in KINDS:
        mine = [c for c in concepts if c.kind == kind]
        found += [mine[:count] for count in range(2, len(mine) + 1)]
    return [*found, list(concepts)] if len({c.kind for c in concepts}) > 1 else found


def retained(group: Sequence[Concept], asked: Sequence[Request]) -> torch.Tensor:
    """(N,) bool: which of N Requests show no concept of a group. SlugError where all show one."""
    rest = ~torch.tensor([c.shown_by(asked) for c in group]).any(0)
    if not rest.any():
        raise SlugError(f"every prompt shows one of {', '.join(c.name for c in group)}; leave one out")
    return rest


def rows_of(
    group: Sequence[Concept], asked: Sequence[Request], before: Judged, after: Judged, seed: int
) -> list[dict[str, Any]]:
    """Rows of multi.csv: for each concept of a group one of the original, and one of the sum of edits.

    Args:
        before, after: what the judge says of the two pipelines. A change is of the pictures that both drew.
    """
    rest, out = retained(group, asked), []
    both = rest & before.drawn & after.drawn
    cells = [f"{r.style}/{r.object}" for r, kept in zip(asked, both.tolist(), strict=True) if kept]
    for concept in group:
        own = torch.tensor(concept.shown_by(asked))
        rows = torch.nonzero(own | rest).flatten().tolist()
        common = {"count": len(group), "names": "; ".join(plain_name(c.name) for c in group), "kind": concept.kind}
        common |= {"name": plain_name(concept.name)}
        for method, (right, drawn) in (("original", before), ("sum", after)):
            mine, shown = {k: r[rows] for k, r in right.items()}, own & drawn
            scores = unlearncanvas.scores(concept, [asked[i] for i in rows], mine, drawn[rows])
            counts = {"n_own": int(shown.sum()), "n_rest": int((rest & drawn).sum()), "n_black": int((~drawn[rows]).sum())}
            low, high = statistics.interval(int((~right[concept.kind][shown]).sum()), counts["n_own"])
            figures = {"method": method, **scores._asdict(), "UA_low": low, "UA_high": high}
            out.append(common | counts | {"seed": seed} | figures)
        for column, kind in (("IRA", concept.kind), ("CRA", OTHER[concept.kind])):
            change = (math.nan,) * 3
            if both.any():
                change = statistics.paired_difference(before.right[kind][both], after.right[kind][both], cells, seed=seed)
            out[-1] |= dict(zip((f"{column}_change{end}" for end in ("", "_low", "_high")), change, strict=True))
    return out


def with_caveats(
    rows: list[dict[str, Any]], group: Sequence[Concept], records: Mapping[Concept, Record]
) -> list[dict[str, Any]]:
    """`rows_of` a group; the sum's rows say which of the edits, alone, does not show that its concept was forgotten."""
    more = [part for concept in group for part in ({}, caveats.of(records[concept]))]
    return [row | said for row, said in zip(rows, more, strict=True)]


def chosen_records(records: Sequence[Record], concepts: Sequence[Concept], method: str) -> dict[Concept, Record]:
    """{concept: its record by a method}. SlugError where there is none."""
    by_concept = {concept_of(r): r for r in records if r["method"] == method}
    lacks = next((" ".join(c) for c in concepts if c.plain not in by_concept), None)
    if lacks:
        raise SlugError(f"no record of {method} for the {lacks} with these prompts; run b2_unlearn_sd.py first")
    return {c: by_concept[c.plain] for c in concepts}


def evaluate(canvas: Canvas, concepts: Sequence[Concept], method: str) -> list[dict[str, Any]]:
    """Rows of multi.csv: all `groups` of concepts, forgotten by the sum of the edits that a method found for each."""
    asked, todo = canvas.split("test"), groups(concepts)
    for group in todo:
        retained(group, asked)  # before what takes long
    records = chosen_records(canvas.records(), concepts, method)

    def judged(group: Sequence[Concept], stem: str) -> Judged:
        edit = total([canvas.edit(records[c]) for c in group])
        mark = [files.file_hash(canvas.delta(records[c])) for c in group] or ""
        with edit.applied(canvas.pipeline):
            paths = canvas.draw(asked, stem, mark)
        return canvas.correct(asked, paths, stem)

    before, rows = judged([], f"{canvas.pipeline.tag}-original"), []
    for group in progress.bar(todo, desc="groups of concepts", unit="pipeline"):
        after = judged(group, f"{canvas.pipeline.tag}-{method}-together")
        rows += with_caveats(rows_of(group, asked, before, after, canvas.run.seed), group, records)
    return rows
