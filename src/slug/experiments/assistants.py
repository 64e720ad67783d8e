"""Assistants (vision-language models) that forget: the search of each name's edit (c1_unlearn_vlm.py)."""

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slug import cli, files, pool, progress, protocols, schema, system
from slug.artifacts import records
from slug.artifacts.gradient_files import GradientFiles
from slug.core import layers, slug, variants
from slug.core.search import Found, Plan, Schedule
from slug.core.selection import Candidate
from slug.data.names import plain_name
from slug.evaluation import questions
from slug.evaluation.assistant import AssistantEvaluator
from slug.models import vlm
from slug.models.canonical import ALONE
from slug.reports import plots
from slug.settings import ForgetAssistant

NOT_SETTINGS = ("force", "celeb_name", "device", "workers", "result_dir", "jobs", "allow_missing")  # these change no result
SHOWN = 4, 5  # images on a sheet: of the forgotten name, of others
Record = dict[str, Any]


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
        common = {"settings": kept, "versions": cli.versions(), **sources(self.model, self.settings.questions)}
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
            counts=evaluator.counts,
        )
        title, marked = f"{name}: vision encoder of {model.label}", best.layer.removesuffix(ALONE)
        plots.pareto(ranked, layers.pareto_front(ranked), marked, title, stem.with_name(f"{stem.name}-pareto"))
        n, rule = evaluator.counts["n_forget"], f"forget accuracy at most {settings.wanted:g}, margins below 0"
        known = {"validation": (round(start.scores["forget_acc"] * n), n)}
        record = {
            "method": method,
            "name": plain_name(name),
            "forgotten": best.forgotten,
            "caveat": records.caveat(known, best.forgotten, rule),
            "left_out": {"questions": self.left_out},
            "model": model.label,
            "protocol": settings.run.protocol,
            "points": protocols.values(settings.run.rules),
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


def sources(model: vlm.Vlm, path: str) -> dict[str, str]:
    """Hashes of the model and the questions."""
    return {"vlm_hash": model.weights_hash(), "questions_hash": questions.digest(path)}


def one_line(record: Record) -> str:
    """A record in one line for the terminal."""
    before, after = record["original_validation"], record["winner_validation"]
    asked = [k for k in questions.PARTS if not math.isnan(before[f"{k}_acc"])]
    asked[1:1] = ["forget_unseen"] if not math.isnan(before.get("forget_unseen_acc", math.nan)) else []
    shares = ", ".join(f"{k.replace('_', ', ')} {before[f'{k}_acc']:.1%} -> {after[f'{k}_acc']:.1%}" for k in asked)
    return (
        f"{record['name']}: {record['layer']} step {record['step']:.4g}; validation split: {shares}; "
        f"{record['n_candidates']} candidates, {record['seconds']:.0f} s, "
        f"delta {record['delta_bytes'] / 1e3:.0f} kB = {record['params_share']:.2%} of the model{schema.note(record)}"
    )
