"""The page of a folder of a CLIP's records, report.html: everything that its records, CSV files and looks hold."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from slug import files, protocols, schema
from slug.errors import SlugError
from slug.reports import clip_tables, comparison, intervals, naming, searches, verdicts
from slug.reports.markdown import Table
from slug.reports.pages import looks, search_charts
from slug.reports.pages.charts import Chart
from slug.reports.pages.rendering import render, unless_missing

Record = dict[str, Any]
FILE = "report.html"
TASKS = {"forget": "The forgotten name", "identities": "Other identities", "objects": "Other objects"}
EVERY_PICTURE = "all pictures of the evaluation, as published"  # where the protocol has no splits
NO_BASELINES = "No baseline was run beside SLUG; scripts/run_clip_comparison.sh runs them."


@dataclass(frozen=True)
class Section:
    """A part of the page: what it shows, or why it is missing."""

    shows: Any
    missing: str = ""


@dataclass(frozen=True)
class NameView:
    """A forgotten name on the page."""

    record: Record
    outcome: verdicts.Outcome
    looks: Section
    pareto: Sequence[Chart]
    front: Sequence[Mapping[str, Any]]
    steps: Section
    tradeoff: Section

    @property
    def title(self) -> str:
        """The name, as the page calls it."""
        return str(self.record["name"])

    @property
    def layer(self) -> str:
        """The edited layer, shortened."""
        return search_charts.full_label(self.record["layer"])

    @property
    def delta(self) -> str:
        """Its delta, as a shell takes it."""
        return shlex.quote(self.record["delta"])

    @property
    def cells(self) -> list[str]:
        """Its row in the table of all names."""
        after, o = self.record["splits"]["test"][self.record["method"]], self.outcome
        changes = [intervals.paired(after, task) for task in schema.TASKS]
        forgotten = [f"{o.before} of {o.pictures}", f"{o.after} of {o.pictures}", o.by_pictures, o.by_sources or "\u2013"]
        return [self.title, o.status, *forgotten, *changes, self.layer]


HEADS = ["name", "targets", "recognised before", "recognised after", "95% bound, by pictures", "by source images"]
HEADS += ["other identities, change in points (95%)", "other objects, change in points (95%)", "edited layer"]


def names_table(views: Sequence[NameView]) -> Table:
    """A row for each forgotten name."""
    return Table(HEADS, [v.cells for v in views])


def chosen_on(record: Record) -> str:
    """The pictures on which a record's layer and step were chosen."""
    known = record.get("protocol") or protocols.OURS.name
    return EVERY_PICTURE if protocols.get(known).every_picture else search_charts.VALIDATION


def _steps(record: Record, folder: Path) -> list[Chart]:
    rows = searches.read_steps(folder, record)
    figures, settings = record["splits"]["validation"][schema.ORIGINAL], record["settings"]
    most = settings["select_pictures"] or figures["n_forget"] + 10**9
    counts = {"forget": figures["n_forget"]} | {t: min(figures.get(f"n_{t}") or 0, most) for t in schema.TASKS}
    winner, limit = record["winner_validation"], verdicts.limit(record)
    return search_charts.steps(rows[1:], rows.iloc[0], winner, TASKS, counts, limit, of=chosen_on(record))


def _tradeoff(records: Mapping[str, Record], folder: Path) -> list[Chart]:
    """Of one name, all methods that were run on it."""
    methods, chosen = {}, dict[str, Any]()
    for method in naming.in_order(records):
        record = records[method]
        methods[method] = searches.with_retained(searches.read_steps(folder, record))
        chosen[method] = searches.chosen(methods[method], record, folder / schema.steps_file(record))
    slug = next(r for m, r in records.items() if schema.is_slug(m))
    limit, what, of = verdicts.limit(slug), "retained accuracy, %", chosen_on(slug)
    charts = [search_charts.tradeoff(methods, chosen, limit, what, "Every candidate", of)]
    return charts + [search_charts.that_forget(methods, chosen, limit, what, of)] * (len(methods) > 1)


def _pareto(record: Record, found: looks.Looks | None) -> list[Chart]:
    charts = []
    for encoder, front in record["fronts"].items():
        every = [r for r in found["layers"] if r["encoder"] == encoder] if found else front
        if front or every:
            charts.append(search_charts.pareto(every, front, record["layer"], encoder))
    return charts


def view(record: Record, folder: Path, methods: Mapping[str, Record]) -> NameView:
    """A name by its record of SLUG and, in `methods`, all records of it."""
    seen, why = unless_missing(lambda: looks.read(folder, record))
    fronts = record.get("fronts") or {}
    front = [row | {"encoder": encoder} for encoder, f in fronts.items() for row in f]
    steps = Section(*unless_missing(lambda: _steps(record, folder)))
    tradeoff = Section(*unless_missing(lambda: _tradeoff(methods, folder)))
    return NameView(
        record,
        verdicts.outcome(record),
        Section(seen, why),
        _pareto(record, seen) if fronts else [],
        sorted(front, key=lambda r: -r["importance"]),
        steps,
        tradeoff,
    )


def _settings(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What the records were made with; where they differ, all values."""
    rows: dict[str, list[str]] = {}

    def note(key: str, value: Any) -> None:
        said = rows.setdefault(key, [])
        if str(value) not in said:
            said.append(str(value))

    for record in records:
        for key in ("model", "tag", "model_hash", "protocol", "seed", "method"):
            if record.get(key) is not None:
                note(key, record[key])
        for part in ("versions", "rule", "settings"):
            for key, value in sorted((record.get(part) or {}).items()):
                if value not in ("", None) and key not in ("seed", "protocol"):
                    note(key if part == "settings" else f"{part}: {key}", value)
    return [(key, " | ".join(said)) for key, said in rows.items()]


def _model_folder(record: Record) -> str:
    """The folder that a record's delta is applied to, as far as the record says it."""
    model = str(record["settings"].get("model") or "")
    return shlex.quote(model.removeprefix("local-dir:")) if model.startswith("local-dir:") else "MODEL_FOLDER"


def html(frame: pd.DataFrame, found: Sequence[Record], folder: Path) -> str:
    """The page of the records in `folder`, whose table.csv is `frame`."""
    by_name: dict[tuple[str, str], dict[str, Record]] = {}
    for record in found:
        by_name.setdefault((record["model"], record["name"]), {})[record["method"]] = record
    slugs = [r for r in found if schema.is_slug(r["method"])]
    views = [view(r, folder, by_name[r["model"], r["name"]]) for r in slugs]
    compared = None
    if comparison.has_baselines(frame) and "slug" in set(frame["method"]):
        compared = {"table": comparison.beside(frame), "statements": comparison.statements(frame).splitlines()}
    return render(
        "clip.html",
        title=f"SLUG on {', '.join(sorted({str(r['model']) for r in found}))}",
        verdict=verdicts.verdict(found),
        headline=clip_tables.means(frame),
        names=names_table(views),
        views=views,
        chosen_on=" and ".join(
            dict.fromkeys(f"{'the ' * (of == search_charts.VALIDATION)}{of}" for of in map(chosen_on, slugs))
        ),
        compared=compared,
        no_baselines=NO_BASELINES,
        costs=comparison.costs(clip_tables.of_test_split(frame)),
        costs_note=comparison.COSTS_NOTE,
        settings=_settings(found),
        model_folder=_model_folder(slugs[0]) if slugs else "MODEL_FOLDER",
        cells=looks.cells,
        suffered=looks.suffered,
        moved=looks.moved,
    )


def write(path: Path, frame: pd.DataFrame, found: Sequence[Record], folder: Path) -> Path:
    """Write `html` to `path`. SlugError if nothing can be shown."""
    if not found:
        raise SlugError(f"there are no records in {folder}")
    files.write_text(path, html(frame, found, folder))
    return path
