"""What assistants answer on the test split with the edits of c1_unlearn_vlm.py (c2_eval_vlm.py)."""

import functools
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from slug import files, progress, schema, system
from slug.artifacts import deltas, records
from slug.artifacts.records import Record
from slug.core.edit import Edit
from slug.data.images import evenly_spaced, told
from slug.evaluation import questions, statistics
from slug.experiments.assistants import sources
from slug.models import vlm
from slug.reports import assistants as tables
from slug.reports import caveats, markdown, plots
from slug.settings import Assistant, Data, Run

# Parts that are scored as published, too, and parts whose changes are reported.
PUBLISHED = "forget", "forget_unseen", "forget_all", "retain", "utility"
CHANGED = *questions.RETAINED, "identities_unseen", "identities_all"
SHOWN = 4, 5  # images on a sheet: of the forgotten name, of others


class State(NamedTuple):
    """Answers of one state of the model: {index of a question: the answer}, and whether it is right, by us and as
    published: there the right answer need only be contained in the first tokens of what is said."""

    said: dict[int, str]
    right: dict[int, bool]
    published: dict[int, bool]


class Exam:
    """The test split's questions put to an assistant, unedited and with an edit for each of some names.

    Attributes:
        rows: {name: {part: indices of its questions}}.
        before: the unedited model's State.
    """

    def __init__(
        self, model: vlm.Vlm, asked: Sequence[questions.Question], marker: questions.Marker, names: Sequence[str], seed: int
    ) -> None:
        self.model, self.asked, self.marker, self.seed = model, asked, marker, seed
        self.rows = {name: questions.sides(asked, name) for name in names}
        self.probing = {name: questions.probes(asked, name) for name in names}
        self.before = self.answers(Edit(), names, "unedited model", probes=True)

    def answers(self, edit: Edit, names: Sequence[str], desc: str, *, probes: bool = False) -> State:
        """The answers to the questions of some names with an edit; `probes`: also to all probes."""
        parts = [part for name in names for part in self.rows[name].values()]
        parts += [part for name in names for part in self.probing[name].values() if probes]
        wanted = sorted({i for part in parts for i in part})
        with edit.applied(self.model):
            said, short = self.model.answers([self.asked[i] for i in wanted], desc=desc)
        found = dict(zip(wanted, said, strict=True))
        published = {i: questions.contained(self.asked[i], s) for i, s in zip(wanted, short, strict=True)}
        return State(found, {i: self.marker.right(self.asked[i], s) for i, s in found.items()}, published)

    def figures(self, name: str, state: State) -> dict[str, float]:
        """Accuracies and numbers of questions as columns; `retain` is the naming of other identities and objects."""
        rows = {**self.rows[name], "retain": self.rows[name]["identities"] + self.rows[name]["objects"]}
        found = {f"{p}_acc": sum(state.right[i] for i in r) / len(r) if r else math.nan for p, r in rows.items()}
        for p in PUBLISHED:
            found[f"{p}_published_acc"] = sum(state.published[i] for i in rows[p]) / len(rows[p]) if rows[p] else math.nan
        return found | {f"n_{p}": len(r) for p, r in rows.items()}

    def own(self, name: str, edit: Edit, found: Sequence[questions.Question]) -> list[dict[str, Any]]:
        """Accuracies on a user's own questions before and after an edit: where the answer is the name, and on others."""
        scored = []
        for state in (Edit(), edit):
            with state.applied(self.model):
                said, short = self.model.answers(found, desc=f"{name}: own questions")
            ours = [self.marker.right(q, s) for q, s in zip(found, said, strict=True)]
            scored.append((ours, [questions.contained(q, s) for q, s in zip(found, short, strict=True)]))
        table = []
        for part, mine in (("the name", True), ("others", False)):
            rows = [i for i, q in enumerate(found) if (q.name.casefold() == name.casefold()) == mine]
            if rows:
                row = {"name": name, "part": part, "n": len(rows)}
                for when, (ours, published) in zip(("before", "after"), scored, strict=True):
                    row[when] = sum(ours[i] for i in rows) / len(rows)
                    row[f"{when}_published"] = sum(published[i] for i in rows) / len(rows)
                table.append(row)
        return table

    def changes(self, name: str, state: State) -> dict[str, float]:
        """Paired changes of retained accuracies as columns, with 95% bootstrap intervals over groups of images."""
        found: dict[str, float] = {}
        for part, rows in ((p, rows) for p in CHANGED if (rows := self.rows[name][p])):
            groups = [self.asked[i].group or str(self.asked[i].image) for i in rows]
            before, after = ([s.right[i] for i in rows] for s in (self.before, state))
            columns = (f"{part}_change", f"{part}_change_low", f"{part}_change_high")
            found |= dict(zip(columns, statistics.paired_difference(before, after, groups, seed=self.seed), strict=True))
        return found

    def table(self, record: Record, state: State) -> list[dict[str, Any]]:
        """The two rows of a name in table.csv: the unedited model, and the edited one in `state`."""
        name, rows = record["name"], self.rows[record["name"]]
        common = {"name": name, "seed": self.seed}
        for end in questions.SIDES:
            common[f"n_drawings{end}"] = len({self.asked[i].group for i in rows[f"forget{end}"]})
        row = {k: record[k] for k in ("method", "layer", "step", "seconds", "peak_mem_mb", "params_share", "n_candidates")}
        row |= {"storage_bytes": record["delta_bytes"], **caveats.of(record)}
        instead = Counter(state.said[i] for i in rows["forget_all"] if not state.right[i])
        if instead:
            row["commonest_share"] = instead.most_common(1)[0][1] / instead.total()
            row["known_share"] = sum(n for text, n in instead.items() if self.marker.knows(text)) / instead.total()
        row["said_instead"] = "; ".join(f"{text} ({n})" for text, n in instead.most_common(4))
        for end in questions.SIDES:
            # An image that is asked about in several wordings is one trial: named in any of them, it counts as named.
            images = {self.asked[i].image for i in rows[f"forget{end}"]}
            named = {self.asked[i].image for i in rows[f"forget{end}"] if state.right[i]}
            row[f"n_pictures{end}"] = len(images)
            if images:
                row[f"forget{end}_upper"] = statistics.interval(len(named), len(images))[1]
        before = {"method": schema.ORIGINAL, **common, **self.figures(name, self.before)}
        return [before, {**row, **common, **self.figures(name, state), **self.changes(name, state)}]

    def kinds(self, name: str, state: State) -> list[dict[str, Any]]:
        """Accuracies by kind of question among the utility questions."""
        found, utility = [], self.rows[name]["utility"]
        for kind in dict.fromkeys(self.asked[i].task for i in utility):
            mine = [i for i in utility if self.asked[i].task == kind]
            before, after = (sum(s.right[i] for i in mine) / len(mine) for s in (self.before, state))
            found.append({"name": name, "kind": kind, "before": before, "after": after, "n": len(mine)})
        return found

    def probes(self, name: str, state: State) -> list[dict[str, Any]]:
        """Rows of probes.csv: for each probe and what it asks for the fractions of right answers, with the paired change.

        `after_upper` is the upper bound of the fraction of pictures; one counts as right if any answer about it is.
        """
        found = []
        for (task, whom), rows in self.probing[name].items():
            groups = [self.asked[i].group or str(self.asked[i].image) or self.asked[i].text for i in rows]
            before, after = ([s.right[i] for i in rows] for s in (self.before, state))
            change, low, high = statistics.paired_difference(before, after, groups, seed=self.seed)
            images = {self.asked[i].image or self.asked[i].text for i in rows}
            right = {self.asked[i].image or self.asked[i].text for i in rows if state.right[i]}
            row = {"name": name, "probe": task, "whom": whom, "before": sum(before) / len(rows)}
            row |= {"after": sum(after) / len(rows), "change": change, "change_low": low, "change_high": high}
            row |= {"after_upper": statistics.interval(len(right), len(images))[1]}
            found.append(row | {"n": len(rows), "n_pictures": len(images), "n_drawings": len(set(groups))})
        return found

    def curve(self, record: Record, edit: Edit, state: State, factors: Sequence[float]) -> list[dict[str, Any]]:
        """Figures at multiples of a record's step, 0 and 1 among them."""
        name, found, known = record["name"], [], {0.0: self.before, 1.0: state}
        for factor in sorted({0.0, 1.0, *factors}):
            there = known.get(factor) or self.answers(edit.scaled(factor), [name], f"{name}, {factor:g} steps")
            row = {"name": name, "layer": record["layer"], "factor": factor, "step": factor * record["step"]}
            found.append(row | self.figures(name, there) | self.changes(name, there))
        return found

    def write_answers(self, name: str, state: State, stem: Path) -> list[Path]:
        """Write the transcript of a name and a sheet of images with answers; returns the paths."""
        rows, before, lines = self.rows[name], self.before, []
        chosen = {p: r for p, r in rows.items() if not p.endswith("_all")}
        chosen |= {"-".join(key): r for key, r in self.probing[name].items()}
        for part, i in ((part, i) for part, indices in chosen.items() for i in indices):
            image = self.asked[i].image
            line = self.asked[i]._asdict() | {"image": image.rsplit("/", 1)[-1] if isinstance(image, str) else ""}
            line |= {"part": part, "before": before.said[i], "after": state.said[i]}
            line |= {"right_before": before.right[i], "right_after": state.right[i]}
            line |= {"published_before": before.published[i], "published_after": state.published[i]}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        text, sheet = stem.with_name(f"{stem.name}.jsonl"), stem.with_name(f"sheet-{stem.name}.png")
        files.write_text(text, "".join(lines))
        own, others = evenly_spaced(rows["forget"], SHOWN[0]), evenly_spaced(rows["identities"] + rows["objects"], SHOWN[1])
        shown, title = own + others, f"{self.model.label}: answers before \u2192 after forgetting {name}"
        said = [(before.said[i], state.said[i]) for i in shown]
        right = [(before.right[i], state.right[i]) for i in shown]
        mine = [k < len(own) for k in range(len(shown))]
        plots.pictures([self.asked[i].picture() for i in shown], mine, said, title, sheet.with_suffix(""), right)
        return [text, sheet]


def _asked(
    path: str, utility: Sequence[str], allowed: float
) -> tuple[list[questions.Question], list[questions.Question], str]:
    """(the questions of `path`, those that are asked: of its test split and of public sets, what is left out, in words)."""
    sets, left_out = [], Counter[str]()
    for place in (path, *utility):
        usable, lost = questions.usable(questions.read(place), place, allowed)
        sets.append(usable)
        left_out.update(lost)
    asked = [q for q in sets[0] if q.split == "test"] + [q._replace(split="test") for part in sets[1:] for q in part]
    return sets[0], asked, told(+left_out) if +left_out else ""


def evaluate(
    run: Run,
    which: Assistant,
    path: str,
    utility: Sequence[str],
    factors: Sequence[float],
    out: str,
    readme: str,
    own: Sequence[str] = (),
    allow_missing: float = Data.allow_missing,
) -> None:
    """Answer the test split's questions with the edit of every record, and write the tables, transcripts and report.

    Args:
        path: the questions.
        utility: public sets that are asked, too.
        factors: multiples of each step that are scored besides 0 and 1.
        out: folder that gets a copy of everything; may be empty.
        readme: Markdown file whose vlm block is filled; may be empty.
        own: folders of a user's own questions, see questions.read_rows.
        allow_missing: fraction of the pictures of each set of questions that may be missing or damaged.
    """
    folder = files.check_writable(run.result_dir) / "vlm"
    copies = files.check_writable(out or folder)
    found, asked, left_out = _asked(path, utility, allow_missing)
    model = vlm.from_settings(which, run.precision, system.settle(run.device, run.seed))
    made = records.read_assistants(folder, model.label, sources(model, path))
    known = [*(names := [r["name"] for r in made]), *(q.answer for q in found if q.task == questions.NAMING)]
    rows = [q for folder_of in own for q in questions.read_rows(folder_of, known)]
    exam = Exam(model, asked, questions.Marker([*found, *rows]), names, run.seed)
    table, kinds, curve, on_rows, probes = [], [], [], [], []
    counts = {"left_out": left_out} if left_out else {}  # a column only where pictures are left out
    written = [folder / "table.csv", folder / "report.md"]
    for record in progress.bar(made, desc="names", unit="name"):
        name, edit = record["name"], Edit(deltas.of_model(model, folder / record["delta"]), record["layer"], record["step"])
        state = exam.answers(edit, [name], name, probes=True)
        table += [row | counts for row in exam.table(record, state)]
        kinds += exam.kinds(name, state)
        probes += exam.probes(name, state)
        curve += exam.curve(record, edit, state, factors) if factors else []
        on_rows += exam.own(name, edit, rows) if rows else []
        written += exam.write_answers(name, state, folder / records.file_name(model.label, name, ""))
    frame = pd.DataFrame(table).assign(protocol=run.protocol)
    frame = frame.reindex(columns=[*schema.ASSISTANT_COLUMNS, *counts, *caveats.columns(table)])
    _write_table(folder / "table.csv", frame)
    more, paths = _other_tables(folder, probes, on_rows)
    written += paths
    quoted = text = "\n\n".join([tables.report(frame, pd.DataFrame(kinds)), *more])
    if curve:
        frame = pd.DataFrame(curve)
        written += [folder / "curve.csv", plot := folder / f"{files.safe_name(model.label)}-curve.png"]
        _write_table(folder / "curve.csv", frame)
        plots.assistant(frame, tables.curve_title(frame), plot.with_suffix(""))
        text += "\n\n" + tables.curve_report(frame, plot.name)
        place = os.path.relpath(copies / plot.name, files.resolve(readme or "README.md").parent)
        quoted += "\n\n" + tables.curve_report(frame, place)
    markdown.publish(folder / "report.md", text, "vlm", readme, quoted)
    for source in written if copies != folder else ():
        files.place(source, copies / source.name)


def _other_tables(folder: Path, probes: list[Record], on_rows: list[Record]) -> tuple[list[str], list[Path]]:
    """Write the rows of probes.csv and rows.csv, where there are any; returns their Markdown and the paths."""
    probing = functools.partial(tables.probes_report, said=questions.PROBES, text_only=questions.TEXT_ONLY)
    texts, paths = [], []
    for name, rows, report in (("probes.csv", probes, probing), ("rows.csv", on_rows, tables.rows_report)):
        if rows:
            paths.append(folder / name)
            _write_table(paths[-1], frame := pd.DataFrame(rows))
            texts.append(report(frame))
    return texts, paths


def _write_table(path: Path, frame: pd.DataFrame) -> None:
    files.write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
