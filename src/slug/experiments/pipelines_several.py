"""Several styles and objects forgotten at once, in several ways (b5_unlearn_multi.py)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from slug import files, progress, schema
from slug.artifacts.records import Record
from slug.core.edit import Edit
from slug.data.canvas import KINDS
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import statistics, unlearncanvas
from slug.evaluation.canvas_classifiers import Judged
from slug.evaluation.canvas_groups import retained
from slug.evaluation.canvas_prompts import OTHER, Concept, Request
from slug.experiments import pipelines_ways
from slug.experiments.pipeline_setup import Canvas, concept_of
from slug.experiments.pipelines_ways import SUM, Ways
from slug.reports import caveats
from slug.schema import WAYS

WHY_NOT = "there are no single steps that keep enough on layers of their own"


def groups(concepts: Sequence[Concept]) -> list[list[Concept]]:
    """What is forgotten together: of each kind the first 2, 3, ... concepts, and all of them where there are both kinds."""
    found = []
    for kind in KINDS:
        mine = [c for c in concepts if c.kind == kind]
        found += [mine[:count] for count in range(2, len(mine) + 1)]
    return [*found, list(concepts)] if len({c.kind for c in concepts}) > 1 else found


def rows_of(
    group: Sequence[Concept], asked: Sequence[Request], states: Mapping[str, Judged], seed: int
) -> list[dict[str, Any]]:
    """Rows of multi.csv: for each concept of a group one of the original, and one of each way to forget them all.

    Args:
        states: {ORIGINAL or way: what the judge says of that pipeline}, the original first. A change is of the pictures that
            both pipelines drew.
    """
    rest, out, before = retained(group, asked), [], states[schema.ORIGINAL]
    for concept in group:
        own = torch.tensor(concept.shown_by(asked))
        rows = torch.nonzero(own | rest).flatten().tolist()
        common = {"count": len(group), "names": "; ".join(plain_name(c.name) for c in group), "kind": concept.kind}
        common |= {"name": plain_name(concept.name)}
        for way, judged in states.items():
            right, drawn = judged
            mine, shown = {k: r[rows] for k, r in right.items()}, own & drawn
            scores = unlearncanvas.scores(concept, [asked[i] for i in rows], mine, drawn[rows])
            counts = {"n_own": int(shown.sum()), "n_rest": int((rest & drawn).sum()), "n_black": int((~drawn[rows]).sum())}
            low, high = statistics.interval(int((~right[concept.kind][shown]).sum()), counts["n_own"])
            figures = {"method": way, **scores._asdict(), "UA_low": low, "UA_high": high}
            changes = {} if way == schema.ORIGINAL else _changes(concept, asked, rest, before, judged, seed)
            out.append(common | counts | {"seed": seed} | figures | changes)
    return out


def _changes(
    concept: Concept, asked: Sequence[Request], rest: torch.Tensor, before: Judged, after: Judged, seed: int
) -> dict[str, float]:
    """Paired changes of IRA and CRA with their intervals, over the cells of the pictures of no concept that both drew."""
    both, found = rest & before.drawn & after.drawn, dict[str, float]()
    cells = [f"{r.style}/{r.object}" for r, kept in zip(asked, both.tolist(), strict=True) if kept]
    for column, kind in (("IRA", concept.kind), ("CRA", OTHER[concept.kind])):
        change = (math.nan,) * 3
        if both.any():
            change = statistics.paired_difference(before.right[kind][both], after.right[kind][both], cells, seed=seed)
        found |= dict(zip((f"{column}_change{end}" for end in ("", "_low", "_high")), change, strict=True))
    return found


def with_caveats(
    rows: list[dict[str, Any]],
    group: Sequence[Concept],
    records: Mapping[Concept, Record],
    fails: Mapping[str, Mapping[Concept, str]],
) -> list[dict[str, Any]]:
    """`rows_of` a group; the rows of what is made of edits say which of these, alone, does not show that its concept was
    forgotten, and all rows whether the choice of their way does not.

    Args:
        fails: {way: Trial.fails of what was chosen}.
    """
    concepts, out = {c.plain: c for c in group}, []
    for row in rows:
        way, concept = row["method"], concepts[Concept(row["kind"], row["name"])]
        why = [fails.get(way, {}).get(concept, "")]
        if way in WAYS:
            why = [caveats.of(records[concept]).get(caveats.COLUMN, ""), *(f"{way}: {w}" for w in why if w)]
        said = "; ".join(filter(None, why))
        out.append(row | ({caveats.COLUMN: said} if said else {}))
    return out


def chosen_records(records: Sequence[Record], concepts: Sequence[Concept], method: str) -> dict[Concept, Record]:
    """{concept: its record by a method}. SlugError where there is none."""
    by_concept = {concept_of(r): r for r in records if r["method"] == method}
    lacks = next((" ".join(c) for c in concepts if c.plain not in by_concept), None)
    if lacks:
        raise SlugError(f"no record of {method} for the {lacks} with these prompts; run b2_unlearn_sd.py first")
    return {c: by_concept[c.plain] for c in concepts}


def evaluate(canvas: Canvas, concepts: Sequence[Concept], method: str, ways: Sequence[str] = (SUM,)) -> list[dict[str, Any]]:
    """Rows of multi.csv: all `groups` of concepts, forgotten in several ways.

    Args:
        method: whose edits of the single concepts are put together.
        ways: of WAYS, and baselines that forget a group at once.
    """
    pipelines_ways.check(ways, method)
    asked, todo = canvas.split("test"), groups(concepts)
    for group in todo:
        retained(group, asked)  # before what takes long
    records = chosen_records(canvas.records(), concepts, method)
    made = Ways(canvas, records, method)

    def judged(edit: Edit, stem: str, mark: Any) -> Judged:
        with edit.applied(canvas.pipeline):
            paths = canvas.draw(asked, stem, mark)
        return canvas.correct(asked, paths, stem)

    before, rows = judged(Edit(), f"{canvas.pipeline.tag}-original", ""), []
    for group in progress.bar(todo, desc="groups of concepts", unit="group"):
        states, fails = {schema.ORIGINAL: before}, dict[str, Mapping[Concept, str]]()
        for way in ways:
            taken = made.chosen(way, group)
            if taken is None:
                print(f"{way}: left out for {', '.join(c.plain.name for c in group)}: {WHY_NOT}")
                continue
            mark = [files.file_hash(canvas.delta(records[c])) for c in group]
            mark = mark if way == SUM else [*mark, way, taken.setting, files.tensor_hash(dict(taken.edit.changes))]
            stem = f"{canvas.pipeline.tag}-{method}-together" if way in WAYS else f"{canvas.pipeline.tag}-{way}-together"
            states[way], fails[way] = judged(taken.edit, stem, mark), taken.fails
        rows += with_caveats(rows_of(group, asked, states, canvas.run.seed), group, records, fails)
    return rows
