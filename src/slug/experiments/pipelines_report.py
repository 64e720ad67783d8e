"""UA, IRA, CRA and FID of a pipeline's records on the test split, with tables and sheets (b3_eval_uncanvas.py)."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from slug import cli, files, methods, progress, schema
from slug.artifacts import adapters, canvas_records
from slug.artifacts.gradient_files import GradientFiles
from slug.artifacts.records import Record
from slug.data.images import by_batch, evenly_spaced
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import canvas_prompts, fid, unlearncanvas
from slug.evaluation.canvas_classifiers import Judged
from slug.evaluation.canvas_prompts import Concept, Request
from slug.experiments.pipeline_setup import Canvas, concept_of
from slug.models import diffusion
from slug.reports import caveats, markdown, naming, plots, reading
from slug.reports import pipelines as report
from slug.settings import Sources

SHOWN = 4, 6  # pictures on a sheet: of the forgotten concept, of others
# Targets: UA of one layer and of several rounds where this share of IRA and CRA is retained.


def before_rounds(record: Record, records: Sequence[Record]) -> Record | None:
    """The record that a record in rounds went on from; None for any other one."""
    mine = methods.first_round(record["method"]), concept_of(record)
    return next((r for r in records if (r["method"], concept_of(r)) == mine), None)


def drawn_as(record: Record, records: Sequence[Record]) -> Record:
    """The record whose pictures a record has: rounds that went no further than their first layer are that edit again."""
    first = before_rounds(record, records)
    return first if first is not None and first["chosen"] == record["chosen"] else record


class State(NamedTuple):
    """A state of the pipeline that makes pictures.

    Attributes:
        stem: what it is called, for people.
        carried: makes a context within which the pipeline is in this state.
        mark: tells states of one stem apart.
        share: which of FID's Requests it draws.
    """

    stem: str
    carried: Callable[[], contextlib.AbstractContextManager]
    mark: str
    share: list[int]


class Examination:
    """All records of a pipeline on the test split of the prompts."""

    def __init__(self, canvas: Canvas, *, by_clip: bool, with_fid: bool, reference: str, fid_weights: str = "") -> None:
        """
        Args:
            by_clip: whether the unedited CLIP is the judge; then there is neither FID nor a plot of candidates.
            reference: folder of real pictures for FID, <Style>/<Object>/<n>.jpg.
            fid_weights: Inception weights; without them FID's features are the object classifier's.
        """
        self.canvas, self.by_clip, self.fid_weights, self.reference = canvas, by_clip, fid_weights, reference
        self.asked, self.records = canvas.split("test"), canvas.records()
        self.dealt: list[tuple[Concept, Request]] = []
        self.real: list[Path] = []
        self.remark = "FID was left out (--no-fid, --judge clip)."
        if with_fid and not by_clip:
            forgotten: dict[str, list[Concept]] = {}
            for r in self.records:
                forgotten.setdefault(r["method"], []).append(concept_of(r))
            # Beyond the seeds of all cells, so that no other picture has FID's seeds.
            first_seed = (max(r.seed for r in canvas.requests) // canvas_prompts.APART + 1) * canvas_prompts.APART
            self.dealt, self.real, self.remark = fid.chosen(forgotten, self.asked, first_seed, reference, canvas.run.seed)

    # -------------------------------------------------------------------------------------------------------- pictures

    def original(self) -> State:
        """The unedited pipeline."""
        return State(f"{self.canvas.pipeline.tag}-original", contextlib.nullcontext, "", list(range(len(self.dealt))))

    def by_delta(self, record: Record) -> State:
        """The pipeline with the edit of a record."""
        same, pipeline = drawn_as(record, self.records), self.canvas.pipeline
        mine = [i for i, (concept, _) in enumerate(self.dealt) if concept == concept_of(same)]
        mark = files.file_hash(self.canvas.delta(same))
        return State(canvas_records.stem_of(same), lambda: self.canvas.edit(same).applied(pipeline), mark, mine)

    def by_lora(self, record: Record) -> State:
        """The pipeline with the adapter of a record, as diffusers loads it."""
        same, pipeline = drawn_as(record, self.records), self.canvas.pipeline
        folder = self.canvas.results / "sd" / same["lora"]["folder"]
        mark, stem = files.file_hash(folder / adapters.FILE), f"{canvas_records.stem_of(same)}-lora"
        return State(stem, lambda: pipeline.with_lora(folder), mark, [])

    def draw(self, state: State) -> tuple[list[Path], list[Path]]:
        """(paths of the test split's pictures, of FID's that fall to the state): some may be among the first."""
        mine = [self.dealt[i][1] for i in state.share]
        known = set(self.asked)
        more = [r for r in mine if r not in known]
        paths: list[Path] = []
        with state.carried():
            for stem, part in ((state.stem, self.asked), (f"{state.stem}-fid", more)):
                paths += self.canvas.draw(part, stem, state.mark)
        of = dict(zip([*self.asked, *more], paths, strict=True))
        return paths[: len(self.asked)], [of[r] for r in mine]

    def painted(self, state: State, two: Sequence[Request]) -> list[Path]:
        """Paths of a state's pictures that the published CRA is of."""
        with state.carried():
            return self.canvas.draw(two, f"{state.stem}-paintings", state.mark)

    def draw_part(self, part: tuple[int, int]) -> None:
        """Make the pictures of the I-th of N parts of all states, and nothing else."""
        once = [r for r in self.records if drawn_as(r, self.records) is r]
        states: list[Callable[[], State]] = [self.original, *(partial(self.by_delta, r) for r in once)]
        states += [partial(self.by_lora, r) for r in once if r["lora"]]
        for state in progress.bar(cli.part_of(part, states), desc="pictures", unit="pipeline"):
            self.draw(state())

    # --------------------------------------------------------------------------------------------------------- figures

    def rows(self, record: Record, before: Judged, after: Judged) -> list[dict[str, Any]]:
        """Rows of table.csv: the original, the record's edit, and its adapter if it has one.

        Args:
            before, after: what the judge says without and with the edit.
        """
        concept, method, rules = concept_of(record), record["method"], self.canvas.run.rules
        two = canvas_prompts.paintings(concept, self.asked) if rules.canvas_two_pictures else []
        common = {"kind": concept.kind, "name": concept.name, "seed": self.canvas.run.seed, "protocol": rules.name}

        def row(name: str, judged: Judged, state: State, **more: Any) -> dict[str, Any]:
            n = int(judged.drawn.sum())
            counts = {"n_images": n, "n_black": len(self.asked) - n}
            scores = unlearncanvas.scores(concept, self.asked, *judged)
            if two:
                of_two = self.canvas.correct(two, self.painted(state, two), state.stem)
                scores = scores._replace(CRA=unlearncanvas.of_paintings(two, *of_two))
            return {"method": name, **common, **counts, **more, **scores._asdict()}

        cost = {k: record[k] for k in ("seconds", "peak_mem_mb", "params_share", "n_candidates")}
        if first := before_rounds(record, self.records):
            cost["n_candidates"] += first["n_candidates"]
            cost["peak_mem_mb"] = max(cost["peak_mem_mb"], first["peak_mem_mb"])
        cost |= {"storage_bytes": record["delta_bytes"], "step": record["chosen"][-1][1] if record["chosen"] else 0.0}
        cost |= {"layer": " + ".join(layer for layer, _ in record["chosen"]), "inside_grid": record.get("inside_grid")}
        cost |= caveats.of(record)
        found = [row(schema.ORIGINAL, before, self.original()), row(method, after, self.by_delta(record), **cost)]
        if record["lora"]:
            state, size = self.by_lora(record), {"storage_bytes": record["lora"]["bytes"]}
            judged = self.canvas.correct(self.asked, self.draw(state)[0], state.stem)
            found.append(row(f"{method}{schema.ADAPTER}", judged, state, **cost | size))
        return found

    def sheet(self, record: Record, paths: Sequence[list[Path]], judged: Sequence[Judged], stem: Path) -> None:
        """Draw pictures before and after the edit of a record, of its concept and of others."""
        own = concept_of(record).shown_by(self.asked)
        places = [[i for i, shown in enumerate(own) if shown == mine] for mine in (True, False)]
        rows = evenly_spaced(places[0], SHOWN[0]) + evenly_spaced(places[1], SHOWN[1])
        titles = [f"{plain_name(self.asked[i].object)}\n{plain_name(self.asked[i].style)}".strip() for i in rows]
        hit = [[all(flags[i].item() for flags in state.right.values()) for i in rows] for state in judged]
        shown = [diffusion.read_pictures([state[i] for i in rows]) for state in paths]
        title = f"{record['name']} ({record['kind']}) forgotten by {naming.label(record['method'])}"
        seen_by = "the unedited CLIP sees" if self.by_clip else "both classifiers see"
        plots.sheet(shown, titles, hit, SHOWN[0], title, stem, seen_by)

    def embed(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """FID's features of pictures."""
        return {"features": self.network(images)}

    def reference_features(self) -> Any:
        """FID's features of the real pictures; none where FID is not given. SlugError if a picture cannot be read."""
        if not self.dealt:
            return None
        judge: Any = self.canvas.judge
        self.network = fid.inception(self.fid_weights, self.canvas.device) if self.fid_weights else judge.features
        size, workers = self.canvas.pipeline.size, self.canvas.run.workers
        found = by_batch(self.embed, [str(p) for p in self.real], fid.resize(size), workers=workers)
        target = found.get("features", ())
        if len(target) < len(self.real):
            lost = len(self.real) - len(target)
            raise SlugError(f"{lost} pictures in {self.reference} cannot be read; take them out of it")
        return target

    def distances(self, drawn: Mapping[str, Mapping[int, Path]], target: Any) -> dict[str, float]:
        """{method: FID}; without a figure where one of a method's pictures is black all over.

        Args:
            drawn: {method: {place in FID's Requests: path of the picture}}.
        """
        found = {}
        for method, paths in drawn.items() if self.dealt else ():
            mine = [paths[i] for i in range(len(self.dealt))]
            if len(diffusion.sound(mine, f"FID of {method}")) == len(mine):
                found[method] = fid.frechet(diffusion.look_at(self.embed, mine)["features"], target)
        return found

    # ---------------------------------------------------------------------------------------------------------- report

    def run(self, out: Path, *, copied: bool, readme: str = "") -> None:
        """Evaluate every record; write the tables, the sheets, the plot of candidates and the report.

        Args:
            copied: whether `out` is for committing: it gets the prompts.
            readme: Markdown file whose uncanvas block is filled.
        """
        for record in self.records:
            read_steps(self.canvas, record)  # now, not after the pictures
        target = self.reference_features()  # before what takes long: it finds what is wrong with the reference
        start = self.original()
        before, of_fid = self.draw(start)
        whole, drawn = self.canvas.correct(self.asked, before, start.stem), {schema.ORIGINAL: dict(enumerate(of_fid))}
        rows, steps = [], []
        for record in progress.bar(self.records, desc="records", unit="record"):
            stem, state = canvas_records.stem_of(record), self.by_delta(record)
            after, of_fid = self.draw(state)
            found = self.canvas.correct(self.asked, after, stem)
            drawn.setdefault(record["method"], {}).update(zip(state.share, of_fid, strict=True))
            rows += self.rows(record, whole, found)
            part = read_steps(self.canvas, record)
            steps.append(part.assign(method=record["method"], kind=record["kind"], name=record["name"]))
            self.sheet(record, (before, after), (whole, found), out / f"sheet-{stem}")
        frame = pd.DataFrame(rows).drop_duplicates(["method", "kind", "name"], ignore_index=True)
        frame["FID"] = frame["method"].map(self.distances(drawn, target)).astype(float)
        frame = report.tidy(frame)
        write_tables(out, frame)
        if not self.by_clip:
            write_candidates(out, self.records, pd.concat(steps), self.canvas.pipeline.tag)
        if copied:
            files.place(self.canvas.prompts, out / "prompts.csv")
        markdown.publish(out / "report.md", self.text(frame), "uncanvas", readme)

    def text(self, frame: pd.DataFrame) -> str:
        """The report."""
        if self.by_clip:
            names = canvas_prompts.labels_of(self.asked)["object"]
            counts = [sum(Concept("object", n).shown_by(self.asked)) for n in names]
            parts = [report.report(frame, "not taken"), report.judged_by_clip(names, counts)]
        else:
            parts = [report.report(frame, "Inception" if self.fid_weights else "object classifier", self.remark)]
        return "\n\n".join([*parts, *self.shared_cost()])

    def shared_cost(self) -> list[str]:
        """What SLUG computes once for all concepts, in words; nothing where the gradient files are gone."""
        found, clip, run = [], self.canvas.pipeline.clip, self.canvas.run
        for method in methods.names(methods.PIPELINE, searched=True):
            name = next((r["name"].replace(" ", "_") for r in self.records if r["method"] == method), "")
            with contextlib.suppress(SlugError):
                if name and not methods.first_round(method):
                    made = GradientFiles(clip, Sources(celeb_name=(name,)), run.result_dir, 1, encoder="language")
                    found.append(f"{method} {made.seconds(name, methods.get(method).variant, 'train'):.0f} s")
        said = "Seconds are of one concept, without what SLUG takes of the retain set once for all of them"
        return [f"{said}: {', '.join(found)}."] if found else []


def read_steps(canvas: Canvas, record: Record) -> pd.DataFrame:
    """The candidates of a record. SlugError if they are not as its stage wrote them."""
    path = canvas.results / "sd" / f"{canvas_records.stem_of(record)}-steps.csv"
    remedy = f"run b2_unlearn_sd.py for {record['name']} again with --force"
    frame = reading.csv_table(path, ("layer", "step", "seeds", *report.SCORES), remedy)
    with reading.as_written(path, remedy):
        report.curve(frame.assign(name=record["name"]), report.SHARES)
    return frame


def write_tables(out: Path, frame: pd.DataFrame) -> None:
    """table.csv, and csv/{style,class}.csv in the published columns, of the first variant of SLUG there is."""
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    ours = (
        m for m in methods.names(methods.PIPELINE, searched=True) if not methods.first_round(m) and m in set(frame["method"])
    )
    one_layer = next(ours, "slug")
    for kind, file in (("style", "style"), ("object", "class")):
        mine = frame[(frame["kind"] == kind) & (frame["method"] == one_layer)]
        mine = mine.rename(columns={"name": "Unlearn Name", "step": "Step Size"})
        text = mine[["Unlearn Name", "Step Size", "UA", "IRA", "CRA"]].to_csv(index=False, lineterminator="\n")
        files.write_text(out / "csv" / f"{file}.csv", text)


def write_candidates(out: Path, records: Sequence[Record], steps: pd.DataFrame, title: str) -> None:
    """candidates.csv, settings.json (with seeds and times), and the plot of what the candidates could reach.

    Args:
        steps: all candidates on the validation split, with the columns method, kind, name.
        title: of the plot.
    """
    seeds = {key: part["seeds"].iloc[0] for key, part in steps.groupby(["method", "kind", "name"])}
    lines = steps.drop(columns="seeds").to_csv(index=False, lineterminator="\n", float_format="%.6g")
    files.write_text(out / "candidates.csv", lines)
    common = {k: v for k, v in records[0].items() if all(r.get(k) == v for r in records)}
    rest = [{k: v for k, v in r.items() if k not in common} for r in records]
    for r, own in zip(records, rest, strict=True):
        own["seeds"] = seeds[r["method"], r["kind"], r["name"]]
    files.write_json(out / "settings.json", {"common": common, "records": rest})
    report.draw(steps, max(r["settings"]["keep"] for r in records), title, out / "tradeoff")
