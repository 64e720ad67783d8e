"""One baseline on one name: its jobs, their files, and the choice among all their candidates.

A job is one setting, e.g. a learning rate; each of its epochs, or of some of its optimiser steps (for SSD: dampenings), is a
candidate.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from slug import files
from slug.artifacts import records
from slug.core import selection
from slug.core.edit import Edit, Replacement
from slug.core.selection import Candidate
from slug.data.names import plain_name
from slug.evaluation import outcome
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.experiments.setup import frozen_aliases
from slug.methods import Method, grids
from slug.models.clip import Clip
from slug.settings import Compare

Weights = dict[str, torch.Tensor]
LOG_HEAD = "# {}Validation split; -1: not evaluated.\n"


def changed(clip: Clip, base: Mapping[str, torch.Tensor]) -> Weights:
    """{name: CPU tensor} of the model's parameters that differ from `base`."""
    return {n: p.detach().cpu().clone() for n, p in clip.parameters.items() if not torch.equal(p, base[n])}


class Scored:
    """The candidates of one job, scored for one name."""

    def __init__(self, evaluator: ClipEvaluator, ahead: Candidate | None, *, whole: bool = False) -> None:
        """
        Args:
            ahead: the best candidate of earlier jobs.
            whole: score what every candidate retains, whether it forgets or not.
        """
        self.evaluator, self.ahead, self.whole = evaluator, ahead, whole
        self.candidates: list[Candidate] = []
        self.best: Candidate | None = None
        self.weights: Weights = {}  # of the best candidate, where they differ from the unedited model's

    def score(self, edit: Edit, base: Mapping[str, torch.Tensor]) -> None:
        """Score the edit that the model carries; `base` holds the unedited model's weights.

        What a search does at its end (selection.spare) has to be done here at once: the weights do not stay.
        """
        found = self.evaluator.score(edit, self.ahead, log_all=self.whole)
        if selection.unsettled(found, self.ahead):
            found = self.evaluator.score(edit, log_all=True)
        self.candidates.append(found)
        self.ahead = selection.winner([self.ahead, found])
        self.best = selection.winner([self.best, found])
        if self.best is found:
            self.weights = changed(self.evaluator.evaluation.clip, base)


@dataclass
class Baseline:
    """One method on one name.

    Attributes:
        model_hash: hash of the unedited model's weights.
        folder: where the records are.
        made_with: what a valid record says it was made with.
        stored: (setting, number of the candidate) that an earlier comparison chose; None where the grid is searched.
        seconds: of the name's own gradient passes, and of those that serve all names.
        evaluators: () -> {split: ClipEvaluator} of the name; called only where something has to be scored.
        jobs: {setting: record} of what was run so far.
    """

    name: str
    method: Method
    clip: Clip
    model_hash: str
    settings: Compare
    folder: Path
    made_with: dict[str, Any]
    stored: tuple[float, int] | None
    seconds: tuple[float, float]
    evaluators: Callable[[], dict[str, ClipEvaluator]]
    jobs: dict[float, dict[str, Any]] = field(default_factory=dict)

    @property
    def grid(self) -> list[float]:
        """The settings asked for, ascending: those of the flags (else the method's own), or the stored one."""
        asked = getattr(self.settings, self.method.setting, self.method.grid)
        return sorted(set(asked)) if self.stored is None else [self.stored[0]]

    @property
    def only(self) -> int | None:
        """The number of the stored candidate; None where all are wanted."""
        return self.stored[1] if self.stored else None

    @property
    def count(self) -> int:
        """Candidates of one job."""
        by_steps = self.settings.step_candidates if self.method.trains else 0
        return self.method.count or by_steps or getattr(self.settings, self.method.epochs)

    def label(self, setting: float) -> str:
        """What records say instead of a layer, e.g. `lr 1e-05`, or `alpha 10` for SSD."""
        return f"{self.method.symbol} {setting:g}"

    def path(self, end: str, setting: float | None = None) -> Path:
        """A result file of the method, or under compare/ one of a job."""
        if setting is None:
            return self.folder / records.file_name(self.clip.label, self.name, end, self.method.name)
        end = f"-{self.label(setting).replace(' ', '')}{end}"
        return self.folder / "compare" / records.file_name(self.clip.label, self.name, end, self.method.name)

    def finished(self) -> dict[str, Any] | None:
        """The valid record that went through all settings and candidates asked for, or None."""
        record = None if self.settings.force else records.valid(self.path(".json"), self.made_with)
        if record is None or not set(self.grid) <= set(record["grid"]):
            return None
        return record if record.get("only") in (None, self.only) else None

    def finished_job(self, setting: float) -> bool:
        """Whether the record of a job is there and valid; it is read."""
        mark = self.made_with | {"setting": setting, "only": self.only}
        done = None if self.settings.force else records.valid(self.path(".json", setting), mark)
        self.jobs |= {setting: done} if done else {}
        return bool(done)

    def write_job(self, setting: float, scored: Scored, times: list[float], peak_mem_mb: float) -> None:
        """Write a job's record, its log, and the weights of its best candidate.

        Args:
            times: seconds after which each candidate of the job was made.
        """
        path = self.path(".json", setting)
        file = path.with_suffix(".safetensors")
        with files.replacing(file) as temporary:
            save_file(scored.weights, temporary)
        self._write_log(setting, scored.candidates, times)
        job = {"delta": file.name, "delta_bytes": file.stat().st_size, "peak_mem_mb": peak_mem_mb, "times": times}
        job |= {"rows": [c.row() for c in scored.candidates], "setting": setting, "only": self.only}
        self.jobs[setting] = job | self.made_with
        files.write_json(path, self.jobs[setting])

    def _write_log(self, setting: float, candidates: Sequence[Candidate], times: Sequence[float]) -> None:
        """Write the published comparison log, `{date}_{model}_{name}_{method}_lr{lr}.txt`, instead of older ones."""
        parts = files.safe_name(self.clip.label), files.name_stem(self.name), self.method.name, self.label(setting)
        end, folder = f"_{'_'.join(parts)}.txt".replace(" ", ""), self.folder / "compare"
        for old in folder.glob(f"*{end}"):
            old.unlink()
        rules, start = self.settings.run.rules, self.evaluators()["validation"].start
        how: dict[str, Any] = {"ratio": rules.comparison_ratio, "mia": rules.comparison_mia}
        ratio = "ratio is the learning rate (ssd: the selection weight). " if rules.comparison_ratio else ""
        mia = f"MIA in % times {rules.comparison_mia:g}. " if rules.comparison_mia != 1 else ""
        lines = [LOG_HEAD.format(ratio + mia), f"{records.log_line(0, start.row(), **how)}, time: 0.0\n"]
        for candidate in candidates:
            n = int(candidate.step)
            row = candidate.row() | {"step": setting}
            lines.append(f"{records.log_line(n, row, **how)}, time: {times[n - 1]:.1f}\n")
        files.write_text(folder / f"{datetime.date.today():%Y%m%d}{end}", "".join(lines))

    def candidates(self) -> list[Candidate]:
        """The candidates of all jobs so far."""
        evaluator, found = self.evaluators()["validation"], []
        for _, job in sorted(self.jobs.items()):
            for row in job["rows"]:
                scores = {k: v for k, v in row.items() if k not in ("layer", "step")}
                found.append(evaluator.candidate(Edit({}, row["layer"], row["step"]), scores))
        return found

    def best(self) -> Candidate | None:
        """The best candidate so far."""
        return selection.winner(self.candidates())

    def choose(self) -> dict[str, Any]:
        """Choose among all candidates, report the choice on both splits, and write the record."""
        best, candidates, evaluators = self.best(), self.candidates(), self.evaluators()
        assert best is not None  # every candidate of a CLIP may be kept
        setting = next(s for s in self.jobs if self.label(s) == best.layer)
        weights = load_file(self.path(".safetensors", setting))
        edit = Replacement(weights, best.layer, best.step)
        aliases = frozen_aliases(self.settings, self.name)
        splits = outcome.on_splits(evaluators, edit, self.method.name, self.settings.run.seed, aliases)
        record = self._record(setting, best, candidates, weights, splits)
        records.write_candidates(self.path("-steps.csv"), [evaluators["validation"].start, *candidates])
        files.write_json(self.path(".json"), record)
        for s in self.jobs:  # the record is complete: the candidates' weights are of no more use
            self.path(".safetensors", s).unlink(missing_ok=True)
        return record

    def _record(
        self, setting: float, best: Candidate, candidates: list[Candidate], weights: Weights, splits: dict[str, Any]
    ) -> dict[str, Any]:
        job, base = self.jobs[setting], {n: p.detach().cpu() for n, p in self.clip.parameters.items()}
        counts = {n: int((w != base[n]).sum()) for n, w in weights.items()}
        touched, (own, shared) = sum(counts.values()), self.seconds
        return {
            "method": self.method.name,
            "name": plain_name(self.name),
            "kind": self.evaluators()["test"].target.kind,
            "model": self.clip.label,
            "tag": self.clip.tag,
            "layer": best.layer,
            "step": best.step,
            "setting": setting,
            "grid": sorted(self.jobs),
            "only": self.only,
            "inside_grid": grids.inside(self.jobs, setting),
            "delta_bytes": job["delta_bytes"],
            "params_touched": touched,
            "forgotten": best.forgotten,
            "caveat": records.clip_caveat(splits, best.forgotten, self.evaluators()["validation"].rule.words),
            "model_hash": self.model_hash,
            "left_out": {n: dict(t.pictures.left_out) for n, t in self.evaluators()["test"].evaluation.tasks.items()},
            "touched_most": dict(sorted(counts.items(), key=lambda item: -item[1])[:5]),
            "params_share": touched / sum(p.numel() for p in base.values()),
            "n_candidates": len(candidates),
            "winner_validation": best.row(),
            "seconds": own + job["times"][int(best.step) - 1],
            "gradient_s": own,
            "shared_s": shared,
            "search_s": sum(j["times"][-1] for j in self.jobs.values()) + sum(c.scores["seconds"] for c in candidates),
            "peak_mem_mb": job["peak_mem_mb"],
            "seed": self.settings.run.seed,
            "splits": splits,
            **self.made_with,
        }
