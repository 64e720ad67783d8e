"""The page of forgetting by someone's own pictures, from the record of an edit."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from slug.reports import forgetting_figures as figures
from slug.reports import searches, verdicts
from slug.reports.markdown import Table
from slug.reports.pages import pictures, search_charts
from slug.reports.pages.charts import Chart
from slug.reports.pages.rendering import render
from slug.schema import ORIGINAL
from slug.settings import MAX_FORGET

HEADS = ["", "before", "after", "95% interval"]


def _table(rows: Sequence[figures.Row], head: str = "") -> Table:
    return Table([head, *HEADS[1:]], [list(row) for row in rows])


def _verdict(record: figures.Record) -> str:
    after, before = (record["splits"]["test"][state] for state in (record["method"], ORIGINAL))
    n, hits, was, name = after["n_forget"], after["forget_recognised"], before["forget_recognised"], record["name"]
    sources = f"{after['n_sources']} source images"
    said = f"Of {n} test pictures of {name} ({sources}) the unedited model recognises {was}, the edited one {hits}: "
    if was <= MAX_FORGET * n:
        return f"{said}there was nothing to forget."
    target = f"the target, at most {MAX_FORGET:.0%}, is {'reached' if hits <= MAX_FORGET * n else 'not reached'}"
    by_sources = verdicts.bound(after["sources_recognised"], after["n_sources"])
    return f"{said}{target} ({verdicts.bound(hits, n)} with 95% confidence by pictures, {by_sources} by source images)."


def _gallery(record: figures.Record, shown: Any) -> list[dict[str, Any]]:
    """The pictures that the unedited model recognises; of other things its own answer is what they show."""
    if shown is None:
        return []
    names = [record["name"] if mine else was[0][0] for mine, was in zip(shown.own, shown.before, strict=True)]
    found = pictures.rows(shown.images, names, shown.own, shown.before, shown.after)
    return [p for p in found if p["before"][0][0] == p["name"]]


def _search(record: figures.Record) -> tuple[list[Chart], list[Chart]]:
    """(step curves, trade-offs of each retained task) of all candidates on the validation split."""
    start, n = record["start"], record["splits"]["validation"][ORIGINAL]
    tasks = {task: figures.words(task) for task in figures.tasks(record) if f"{task}_acc1" in start}
    counts = {"forget": n["n_forget"]} | {task: n[f"n_{task}"] for task in tasks}
    rows = pd.DataFrame(record["candidates"])
    rows = rows.assign(**{c: float("nan") for c in (f"{task}_acc1" for task in tasks) if c not in rows})
    winner = record["winner"]
    words = {"forget": f"recognised as {record['name']}"} | tasks
    steps = search_charts.steps(rows, start, winner, words, counts, MAX_FORGET, list(tasks))
    first = pd.DataFrame([{"layer": "", "step": 0.0, **{k: v for k, v in start.items() if k not in ("layer", "step")}}])
    tradeoffs = []
    for task, what in tasks.items():
        exact, trace = searches.curve(rows, start, task)
        retain = pd.Series(exact).fillna(pd.Series(trace)).to_numpy()
        every = pd.concat([first.assign(retain=start[f"{task}_acc1"]), rows.assign(retain=retain)], ignore_index=True)
        chosen = {**winner, "retain": winner.get(f"{task}_acc1", float("nan"))}
        found = {record["method"]: every[["layer", "step", "forget_acc1", "retain"]]}
        tradeoffs.append(search_charts.tradeoff(found, {record["method"]: chosen}, MAX_FORGET, "retained, %", what))
    return steps, tradeoffs


def _split_rows(record: figures.Record) -> Table:
    """How the pictures were split."""
    sets = record["sets"]
    uses = {"gradient": "gives the gradients", "validation": "chooses the edit", "test": "is reported here"}
    rows = [
        [part, *(f"{sets[of][part]['pictures']} ({sets[of][part]['sources']})" for of in ("concept", "retain")), use]
        for part, use in uses.items()
    ]
    return Table(["part", "of the concept", "of other things", ""], rows)


def _together(record: figures.Record) -> Table | None:
    """How much of each name is recognised where all edits of the call are applied at once."""
    rows = [
        (
            name,
            figures.percent(f["before"]),
            f"{figures.percent(f['after'])} ({f['recognised']} of {f['n']})",
            verdicts.bound(f["recognised"], f["n"]),
        )
        for name, f in (record.get("together") or {}).items()
    ]
    return _table(rows, "sum of the edits") if rows else None


def html(record: figures.Record, shown: Any = None) -> str:
    """The report as one page that needs no other file; of a model with several edited towers a part for each.

    Args:
        shown: experiments.forgetting.Shown of the process that made the edit, else None; of several towers one for each.
    """
    towers = record.get("towers") or {"": record}
    parts = [_part(own, shown[tower] if shown is not None and tower else shown) for tower, own in towers.items()]
    return render("own.html", title=f"{record['model']} without {record['name']}", name=record["name"], parts=parts)


def _part(record: figures.Record, shown: Any) -> dict[str, Any]:
    """What the template shows of one CLIP."""
    steps, tradeoffs = _search(record)
    pareto = [
        search_charts.pareto([r for r in record["layers"] if r["encoder"] == encoder], front, record["layer"], encoder)
        for encoder, front in (record.get("fronts") or {}).items()
        if record["layers"] and front
    ]
    kept = figures.retain_rows(record)[:-1]
    return {
        "title": f"{record['model']} without {record['name']}",
        "record": record,
        "layer": search_charts.full_label(record["layer"]),
        "verdict": _verdict(record),
        "kept": [f"{what}: {was} → {now}" + f" ({sure})" * bool(sure) for what, was, now, sure in kept],
        "said": [(answer, share) for answer, share in record["splits"]["test"]["said"]],
        "forget": _table(figures.forget_rows(record)),
        "retain": _table(figures.retain_rows(record)),
        "together": _together(record),
        "gallery": _gallery(record, shown),
        "pareto": pareto,
        "steps": steps,
        "tradeoffs": tradeoffs,
        "splits": _split_rows(record),
        "left_out": [f"{what}: {n}" for what, n in record["sets"]["left_out_of_retain"].items() if n],
    }
