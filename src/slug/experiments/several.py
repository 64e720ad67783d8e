"""Several names forgotten together by the sum of their edits (paper, section 3): factors of steps, and rows of the
report."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slug import files
from slug.artifacts import cards, deltas, records
from slug.core import selection
from slug.core.edit import Edit, total
from slug.evaluation import outcome, statistics, zeroshot
from slug.evaluation.clip_evaluator import forget_rows, forget_scores
from slug.evaluation.clip_tasks import Evaluation, Masks
from slug.models.clip import Clip
from slug.schema import REVERTED
from slug.settings import MAX_FORGET

FACTORS = 5  # times that factors are lengthened, and that each is halved between two bounds, in the joint search
LONGEST = 4.0  # a step is lengthened to at most this many times its own length
Factors = tuple[float, ...]
Row = dict[str, Any]
Header = Mapping[str, str]


class Group:
    """Names that are forgotten together, on both splits of one evaluation; `masks`: {split: {task: (N,) bool}}. The pictures
    `retain_rows` of the test split, {task: indices}, show no name of the group."""

    max_forget: float = MAX_FORGET  # forget accuracy up to which a name counts as forgotten, on the validation split

    def __init__(
        self,
        evaluation: Evaluation,
        masks: dict[str, Masks],
        names: Sequence[str],
        edits: dict[str, Edit],
        seed: int,
        max_forget: float = MAX_FORGET,
    ) -> None:
        self.max_forget = max_forget
        self.evaluation, self.names, self.seed, self.masks = evaluation, list(names), seed, masks
        self.edits = [edits[n] for n in names]
        self.targets = [evaluation.target(n) for n in names]
        self.own_rows = {s: [forget_rows(evaluation, t, m) for t in self.targets] for s, m in masks.items()}
        self.retain_rows = {}
        for task, mask in masks["test"].items():
            rest = mask.clone()
            for target, rows in zip(self.targets, self.own_rows["test"], strict=True):
                if target.task == task:
                    rest[rows] = False
            self.retain_rows[task] = evaluation.rows(task, rest)

    def edit(self, factors: Sequence[float]) -> Edit:
        """The sum of the edits, each times its factor."""
        return total(self.edits, factors)

    @functools.cache  # noqa: B019  (a group lives as long as one count of names)
    def forgotten(self, factors: Factors) -> list[dict[str, float]]:
        """clip_evaluator.forget_scores of each name on the validation split under these factors."""
        with self.evaluation.carrying(self.edit(factors)):
            pairs = zip(self.targets, self.own_rows["validation"], strict=True)
            return [forget_scores(*self.evaluation.forget(target, rows)) for target, rows in pairs]

    def forgets(self, factors: Factors, sigmas: float) -> list[bool]:
        """Which names factors make forgotten on the validation split, with the margins `sigmas` deviations below 0."""
        found = self.forgotten(factors)
        how = {"most": self.max_forget, "sigmas": sigmas}
        return [selection.forgets(s["forget_acc1"], s["margin"], s["margin_sd"], **how) for s in found]

    def left(self, factors: Factors, sigmas: float) -> int:
        """How many names factors do not make forgotten on the validation split."""
        return self.forgets(factors, sigmas).count(False)

    def joint(self, sigmas: float) -> Factors:
        """Factors by which every name is still forgotten on the validation split and each step is as short as it can be.

        Names that the sum does not forget get longer steps first; then all steps together, and after that each in turn,
        are bisected between 0 and what they are. Where no lengthening makes all names forgotten, the factors that leave the
        fewest names, and of these the lowest forget accuracy, are returned as they are.
        """
        factors, tried = (1.0,) * len(self.names), []
        for _ in range(FACTORS + 1):
            tried.append(factors)
            if not self.left(factors, sigmas):
                break
            steps = zip(factors, self.forgets(factors, sigmas), strict=True)
            factors = tuple(f if forgotten else min(f * math.sqrt(2), LONGEST) for f, forgotten in steps)
        else:
            return min(tried, key=lambda f: (self.left(f, sigmas), sum(s["forget_acc1"] for s in self.forgotten(f))))
        everyone = range(len(factors))
        for part in (everyone, *([i] for i in everyone)):
            low, high, found = 0.0, 1.0, factors
            for _ in range(FACTORS):
                middle = (low + high) / 2
                shorter = tuple(f * middle if i in part else f for i, f in enumerate(factors))
                if self.left(shorter, sigmas):
                    low = middle
                else:
                    high, found = middle, shorter
            factors = found
        return factors

    def own(self) -> list[torch.Tensor]:
        """Ranks of each name's pictures on the test split under the edit that the model carries."""
        rows = self.own_rows["test"]
        return [self.evaluation.ranks(t.task, r) for t, r in zip(self.targets, rows, strict=True)]

    def rest(self) -> dict[str, torch.Tensor]:
        """{task: ranks of the pictures of `retain_rows`} under the edit that the model carries."""
        return {task: self.evaluation.ranks(task, rows) for task, rows in self.retain_rows.items()}

    def similarity(self) -> dict[str, Any]:
        """{task: outcome.similarity} of the group's names and as many others, on the test split."""
        found = {}
        for task in dict.fromkeys(t.task for t in self.targets):
            mine = [t for t in self.targets if t.task == task]
            found[task] = outcome.similarity(self.evaluation, mine, self.masks["test"], others=6)
        return found

    # ------------------------------------------------------------------------------------------------ rows of table.csv

    def _common(self, method: str) -> Row:
        about = {"method": method, "count": len(self.names), "names": "; ".join(self.names)}
        return about | {"model": self.evaluation.clip.label, "split": "test", "seed": self.seed}

    def _named(self, method: str, i: int, factor: float, before: torch.Tensor, after: torch.Tensor) -> tuple[Row, list[str]]:
        """(the row of the i-th name by its ranks, the source image of each of its pictures)."""
        target, rows = self.targets[i], self.own_rows["test"][i].tolist()
        groups = [self.evaluation.tasks[target.task].pictures.groups[row] for row in rows]
        about = {"name": target.name, "kind": target.kind, "task": target.task, "factor": factor, **_counted([after])}
        more = {"n_drawings": len(set(groups)), "forget_before": zeroshot.accuracies(before)[0]}
        return self._common(method) | about | more, groups

    def rows(self, method: str, factors: Factors, before: Any, after: Any, sigmas: float = 0.0) -> list[Row]:
        """A row for each name, then one of what is retained, by (`own`, `rest`) of the unedited model and of the edited
        one; `sigmas` as for `forgets`. The model is unedited."""
        (own_before, rest_before), (own, rest) = before, after
        out = [self._named(method, i, f, own_before[i], own[i])[0] for i, f in enumerate(factors)]
        row = self._common(method) | {"name": "all", **_counted(own), "n_drawings": sum(r["n_drawings"] for r in out)}
        row["n_left_validation"] = self.left(factors, sigmas)
        row |= {f"{task}_acc1": zeroshot.accuracies(rank)[0] for task, rank in rest.items()}
        row |= {f"n_{task}": len(rank) for task, rank in rest.items()}
        return [*out, row | outcome.changes(self.evaluation, self.retain_rows, rest_before, rest, self.seed)]

    def reverted_rows(self, method: str, factors: Factors, own_before: list[torch.Tensor]) -> list[Row]:
        """For each name, the sum without its edit alone: whether that name is recognised again, and the others are not."""
        out = []
        for i in range(len(self.names)):
            with self.evaluation.carrying(self.edit([f * (j != i) for j, f in enumerate(factors)])):
                own = self.own()
            row, groups = self._named(f"{method}{REVERTED}", i, 0.0, own_before[i], own[i])
            change = statistics.paired_difference(own_before[i] < 1, own[i] < 1, groups, seed=self.seed)
            row |= dict(zip(("forget_change", "forget_change_low", "forget_change_high"), change, strict=True))
            others = _counted([rank for j, rank in enumerate(own) if j != i])
            out.append(row | {k.replace("forget", "others"): v for k, v in others.items()})
        for row in out:
            row["n_others_drawings"] = sum(r["n_drawings"] for r in out if r is not row)
        return out


def _counted(ranks: list[torch.Tensor]) -> Row:
    """Top-1 accuracy of pooled ranks with its 95% interval, as columns."""
    correct, count = sum(int((r < 1).sum()) for r in ranks), sum(map(len, ranks))
    low, high = statistics.interval(correct, count)
    return {"forget_acc1": correct / count, "forget_low": low, "forget_upper": high, "n_forget": count}


def ways(group: Group, sigmas: Sequence[float]) -> Iterator[tuple[str, float, Factors]]:
    """(method, deviations, factors): the plain sum, then a joint search for each number of deviations."""
    yield "sum", 0.0, (1.0,) * len(group.names)
    for s in dict.fromkeys(sigmas):
        yield f"joint-{s:g}", s, group.joint(s)


def read_edits(
    clip: Clip, folder: Path, names: Sequence[str], seed: int, imagenet_share: float
) -> tuple[dict[str, Edit], dict[str, Header]]:
    """({name: edit}, {name: header of its delta}). SlugError where one is missing or of other splits."""
    edits, headers = {}, {}
    for name in names:
        tensors, header = deltas.read(folder / records.file_name(clip.label, name, ".delta.safetensors"))
        path = folder / records.file_name(clip.label, name, ".json")
        record = records.check_whole(path, files.read_json(path))
        records.check_splits(record, seed=seed, imagenet_share=imagenet_share)
        headers[name] = header
        edits[name] = Edit(deltas.native(clip, tensors, header), header["layer"], float(header["step"]))
    return edits, headers


def write_deltas(group: Group, factors: Factors, headers: dict[str, Header], table: list[Row], folder: Path) -> None:
    """Write the delta of each name's edit times its factor, with figures from `table`, whose first rows are the names'."""
    clip = group.evaluation.clip
    for name, factor, edit, row in zip(group.names, factors, group.edits, table[: len(factors)], strict=True):
        metrics = {k: row[k] for k in ("forget_acc1", "forget_upper", "n_forget", "split", "factor")}
        header, path = headers[name], folder / records.file_name(clip.label, name, ".delta.safetensors")
        metrics |= {"method": cards.method_of(header), "together_with": [n for n in group.names if n != name]}
        scaled = edit.scaled(factor)
        deltas.save(path, clip, scaled.changes, name=name, layer=scaled.layer, step=scaled.step, metrics=metrics)
