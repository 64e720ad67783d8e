"""Assistants (vision-language models) that forget: the search of each name's edit (c1_unlearn_vlm.py), and what they answer
with it on the test split (c2_eval_vlm.py)."""

import functools
import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from slug import cli, files, pool, progress, schema, system
from slug.artifacts import deltas, records
from slug.artifacts.gradient_files import GradientFiles
from slug.core import layers, slug, variants
from slug.core.edit import Edit
from slug.core.search import Found, Plan, Schedule
from slug.core.selection import Candidate
from slug.data.images import evenly_spaced, told
from slug.data.names import plain_name
from slug.evaluation import questions, statistics
from slug.evaluation.assistant import AssistantEvaluator
from slug.models import vlm
from slug.models.canonical import ALONE
from slug.reports import assistants as tables
from slug.reports import caveats, markdown, plots
from slug.settings import Assistant, Data, ForgetAssistant, Run

NOT_SETTINGS = ("force", "celeb_name", "device", "workers", "result_dir", "jobs", "allow_missing")  # these change no result
SHOWN = 4, 5  # images on a sheet: of the forgotten name, of others
Record = dict[str, Any]

# -------------------------------------------------------------------------------------------------------------- search


def forget(settings: ForgetAssistant) -> None:
    """Forget every name of the settings, in --jobs processes; valid records are kept."""
    files.check_writable(settings.run.result_dir)
    search = Search(settings)
    search.model.clip.checkpointing = settings.grad_checkpointing
    search.gradients.write(search.variant, search.flat, workers=settings.run.workers, force=settings.force)
    names = search.gradients.names
    jobs = min(settings.jobs, len(names))
    if jobs == 1:
        search.run(names)
        return
    del search
    do = functools.partial(_in_process, settings=settings, threads=max(1, torch.get_num_threads() // jobs))
    list(pool.spread(do, names, workers=jobs))  # one name at a time: some take three times as long as others


def _in_process(name: str, settings: ForgetAssistant, threads: int) -> None:
    """Forget one name in a process of its own."""
    torch.set_num_threads(threads)
    Search(settings).run([name])


class Search:
    """The search of names' edits on one assistant."""

    def __init__(self, settings: ForgetAssistant) -> None:
        run, self.settings, self.variant = settings.run, settings, variants.get(settings.unlearn_method)
        asked = questions.read(settings.questions)  # before anything that takes long
        self.questions, self.left_out = questions.usable(asked, settings.questions, settings.allow_missing)
        self.model = vlm.from_settings(settings.assistant, run.precision, system.settle(run.device, run.seed))
        clip, sources, batch_size = self.model.clip, settings.sources, settings.batch_size
        how: dict[str, Any] = {"encoder": "vision", "flags": cli.values(settings), "protocol": run.rules}
        self.gradients = GradientFiles(clip, sources, run.result_dir, batch_size, **how)
        # One spelling of the variant, so that a record is valid under either.
        self.flat = cli.flat(settings) | {"unlearn_method": self.variant.gradient}

    def run(self, names: Sequence[str]) -> None:
        """Make the records of names, one after the other; valid ones are kept."""
        kept = {k: v for k, v in self.flat.items() if k not in NOT_SETTINGS}
        common = {"settings": kept, "versions": cli.versions(), **_sources(self.model, self.settings.questions)}
        folder, made = files.resolve(self.settings.run.result_dir) / "vlm", []
        for name in names if not self.settings.force else ():
            path = folder / records.file_name(self.model.label, name, ".json")
            records.check_weights(path, "vlm_hash", str(common["vlm_hash"]))
        for name in names:
            mark = common | self.gradients.hashes(name, self.variant)
            path = folder / records.file_name(self.model.label, name, ".json")
            record = None if self.settings.force else records.valid(path, mark)
            made.append(record or self._forget(name, path, mark))
            print(one_line(made[-1]), flush=True)
        if records.ending(made):
            print(records.ending(made), flush=True)

    def _search(self, name: str, start: Candidate, evaluator: AssistantEvaluator) -> tuple[list[layers.Layer], Found]:
        """(all layers that may be edited, what the search found)."""
        settings, clip = self.settings, self.model.clip
        loaded = self.gradients.load(name, self.variant)
        ranked = layers.figures(clip, loaded.forget, loaded.retain, self.model.candidates())
        plan = Plan(
            fronts=settings.fronts,
            log_all=settings.log_all,
            alone=not settings.whole_groups,
            deepest_first=True,
            schedule=Schedule(evaluations=settings.evaluations),
        )

        def enough(best: Candidate) -> bool:
            return best.forgotten and best.retained >= start.retained - settings.lost

        with progress.bar(desc=f"{name}: candidates", unit="candidate") as bar:

            def settled(best: Candidate | None) -> bool:
                bar.update()  # asked after every candidate
                return False

            return ranked, slug.front_by_front(clip, evaluator, ranked, loaded.forget, plan, enough, settled=settled)

    def _forget(self, name: str, path: Path, mark: dict[str, Any]) -> Record:
        """Search and write everything of a name; returns its record."""
        settings, model, method = self.settings, self.model, self.variant.slug
        evaluator = AssistantEvaluator(model, self.questions, name, wanted=settings.wanted, sigmas=settings.sigmas)
        start = evaluator.start
        system.reset_peak_memory(model.module.device)
        started = time.perf_counter()
        ranked, found = self._search(name, start, evaluator)
        seconds, gradient_s = time.perf_counter() - started, self.gradients.seconds(name, self.variant)
        best, stem = found.winner, path.with_suffix("")
        assert best is not None  # every candidate of an assistant may be kept
        written = records.write_search(
            stem,
            model,
            best.edit,
            method=method,
            name=plain_name(name),
            chosen=[(best.layer, best.step)],
            start=start,
            candidates=found.candidates,
            best=best,
            counts={f"n_{part}": len(asked) for part, asked in evaluator.asked.items()},
        )
        title, marked = f"{name}: vision tower of {model.label}", best.layer.removesuffix(ALONE)
        plots.pareto(ranked, layers.pareto_front(ranked), marked, title, stem.with_name(f"{stem.name}-pareto"))
        n, rule = len(evaluator.asked["forget"]), f"forget accuracy at most {settings.wanted:g}, margins below 0"
        known = {"validation": (round(start.scores["forget_acc"] * n), n)}
        record = {
            "method": method,
            "name": plain_name(name),
            "forgotten": best.forgotten,
            "caveat": records.caveat(known, best.forgotten, rule),
            "left_out": {"questions": self.left_out},
            "model": model.label,
            "layer": best.layer,
            "step": best.step,
            **written,
            "seconds": gradient_s + seconds,
            "gradient_s": gradient_s,
            "peak_mem_mb": system.peak_memory_mb(model.module.device),
            **mark,
        }
        files.write_json(path, record)
        return record


def _sources(model: vlm.Vlm, path: str) -> dict[str, str]:
    """Hashes of the model and the questions."""
    return {"vlm_hash": model.weights_hash(), "questions_hash": questions.digest(path)}


def one_line(record: Record) -> str:
    """A record in one line for the terminal."""
    before, after = record["original_validation"], record["winner_validation"]
    asked = [k for k in questions.PARTS if not math.isnan(before[f"{k}_acc"])]
    shares = ", ".join(f"{k} {before[f'{k}_acc']:.1%} -> {after[f'{k}_acc']:.1%}" for k in asked)
    return (
        f"{record['name']}: {record['layer']} step {record['step']:.4g}; validation split: {shares}; "
        f"{record['n_candidates']} candidates, {record['seconds']:.0f} s, "
        f"delta {record['delta_bytes'] / 1e3:.0f} kB = {record['params_share']:.2%} of the model{schema.note(record)}"
    )


# ------------------------------------------------------------------------------------------------------ the test split


class State(NamedTuple):
    """Answers of one state of the model: {index of a question: the answer}, and whether it is right."""

    said: dict[int, str]
    right: dict[int, bool]


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
        self.rows = {name: questions.parts(asked, name) for name in names}
        self.before = self.answers(Edit(), names, "unedited model")

    def answers(self, edit: Edit, names: Sequence[str], desc: str) -> State:
        """The answers to the questions of some names with an edit."""
        wanted = sorted({i for name in names for part in self.rows[name].values() for i in part})
        with edit.applied(self.model):
            said = self.model.answer([self.asked[i] for i in wanted], desc=desc)
        found = dict(zip(wanted, said, strict=True))
        return State(found, {i: self.marker.right(self.asked[i], s) for i, s in found.items()})

    def figures(self, name: str, state: State) -> dict[str, float]:
        """Accuracies and numbers of questions as columns; `retain` is the naming of other identities and objects."""
        rows = {**self.rows[name], "retain": self.rows[name]["identities"] + self.rows[name]["objects"]}
        found = {f"{p}_acc": sum(state.right[i] for i in r) / len(r) if r else math.nan for p, r in rows.items()}
        return found | {f"n_{p}": len(r) for p, r in rows.items()}

    def changes(self, name: str, state: State) -> dict[str, float]:
        """Paired changes of retained accuracies as columns, with 95% bootstrap intervals over groups of images."""
        found: dict[str, float] = {}
        for part, rows in ((p, rows) for p in questions.RETAINED if (rows := self.rows[name][p])):
            groups = [self.asked[i].group or str(self.asked[i].image) for i in rows]
            before, after = ([s.right[i] for i in rows] for s in (self.before, state))
            columns = (f"{part}_change", f"{part}_change_low", f"{part}_change_high")
            found |= dict(zip(columns, statistics.paired_difference(before, after, groups, seed=self.seed), strict=True))
        return found

    def table(self, record: Record, state: State) -> list[dict[str, Any]]:
        """The two rows of a name in table.csv: the unedited model, and the edited one in `state`."""
        name, rows = record["name"], self.rows[record["name"]]
        common = {"name": name, "seed": self.seed, "n_drawings": len({self.asked[i].group for i in rows["forget"]})}
        row = {k: record[k] for k in ("method", "layer", "step", "seconds", "peak_mem_mb", "params_share", "n_candidates")}
        row |= {"storage_bytes": record["delta_bytes"], **caveats.of(record)}
        instead = Counter(state.said[i] for i in rows["forget"] + rows["forget_unseen"] if not state.right[i])
        if instead:
            row["commonest_share"] = instead.most_common(1)[0][1] / instead.total()
            row["known_share"] = sum(n for text, n in instead.items() if self.marker.knows(text)) / instead.total()
        row["said_instead"] = "; ".join(f"{text} ({n})" for text, n in instead.most_common(4))
        # An image that is asked about in several wordings is one trial: named in any of them, it counts as named.
        images = {self.asked[i].image for i in rows["forget"]}
        named = {self.asked[i].image for i in rows["forget"] if state.right[i]}
        row |= {"n_pictures": len(images), "forget_upper": statistics.interval(len(named), len(images))[1]}
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
        for part, i in ((part, i) for part, chosen in rows.items() for i in chosen):
            image = self.asked[i].image
            line = self.asked[i]._asdict() | {"image": image.rsplit("/", 1)[-1] if isinstance(image, str) else ""}
            line |= {"part": part, "before": before.said[i], "after": state.said[i]}
            line |= {"right_before": before.right[i], "right_after": state.right[i]}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        text, sheet = stem.with_name(f"{stem.name}.jsonl"), stem.with_name(f"sheet-{stem.name}.png")
        files.write_text(text, "".join(lines))
        own, others = evenly_spaced(rows["forget"], SHOWN[0]), evenly_spaced(rows["identities"] + rows["objects"], SHOWN[1])
        shown, title = own + others, f"{self.model.label}: {name} forgotten"
        said = [(before.said[i], state.said[i]) for i in shown]
        right = [(before.right[i], state.right[i]) for i in shown]
        plots.answers([self.asked[i].picture() for i in shown], said, right, len(own), title, sheet.with_suffix(""))
        return [text, sheet]


def evaluate(
    run: Run,
    which: Assistant,
    path: str,
    utility: Sequence[str],
    factors: Sequence[float],
    out: str,
    readme: str,
    allow_missing: float = Data.allow_missing,
) -> None:
    """Answer the test split's questions with the edit of every record, and write the tables, transcripts and report.

    Args:
        path: the questions.
        utility: public sets that are asked, too.
        factors: multiples of each step that are scored besides 0 and 1.
        out: folder that gets a copy of everything; may be empty.
        readme: Markdown file whose vlm block is filled; may be empty.
        allow_missing: fraction of the pictures of each set of questions that may be missing or damaged.
    """
    device, folder = system.settle(run.device, run.seed), files.check_writable(run.result_dir) / "vlm"
    copies = files.check_writable(out or folder)
    sets, left_out = [], Counter[str]()
    for file in (path, *utility):
        usable, lost = questions.usable(questions.read(file), file, allow_missing)
        sets.append(usable)
        left_out.update(lost)
    model, found = vlm.from_settings(which, run.precision, device), sets[0]
    asked = [q for q in found if q.split == "test"] + [q._replace(split="test") for part in sets[1:] for q in part]
    made = records.read_assistants(folder, model.label, _sources(model, path))
    exam = Exam(model, asked, questions.Marker(found), [r["name"] for r in made], run.seed)
    table, kinds, curve = [], [], []
    counts = {"left_out": told(+left_out)} if +left_out else {}  # a column only where pictures are left out
    written = [folder / "table.csv", folder / "report.md"]
    for record in progress.bar(made, desc="names", unit="name"):
        name, edit = record["name"], Edit(deltas.of_model(model, folder / record["delta"]), record["layer"], record["step"])
        state = exam.answers(edit, [name], name)
        table += [row | counts for row in exam.table(record, state)]
        kinds += exam.kinds(name, state)
        curve += exam.curve(record, edit, state, factors) if factors else []
        written += exam.write_answers(name, state, folder / records.file_name(model.label, name, ""))
    frame = pd.DataFrame(table).reindex(columns=[*schema.ASSISTANT_COLUMNS, *counts, *caveats.columns(table)])
    _write_table(folder / "table.csv", frame)
    text = quoted = tables.report(frame, pd.DataFrame(kinds))
    if curve:
        frame, plot = pd.DataFrame(curve), folder / f"{files.safe_name(model.label)}-curve.png"
        written += [folder / "curve.csv", plot]
        _write_table(folder / "curve.csv", frame)
        title = f"{model.label}, test split: multiples of each name's step; filled: the step that was chosen"
        plots.assistant(frame, title, plot.with_suffix(""))
        text += "\n\n" + tables.curve_report(frame, plot.name)
        beside = files.resolve(readme or "README.md").parent
        quoted += "\n\n" + tables.curve_report(frame, os.path.relpath(copies / plot.name, beside))
    markdown.publish(folder / "report.md", text, "vlm", readme, quoted)
    for source in written if copies != folder else ():
        files.place(source, copies / source.name)


def _write_table(path: Path, frame: pd.DataFrame) -> None:
    files.write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
