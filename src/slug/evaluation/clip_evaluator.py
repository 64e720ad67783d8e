"""Scores edits of a CLIP for one name on one split of the evaluation (see evaluation.protocol.Evaluator)."""

import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from slug.core import selection
from slug.core.edit import Edit
from slug.core.selection import Candidate, Rule
from slug.data.pairs import Pairs
from slug.errors import SlugError
from slug.evaluation import membership, zeroshot
from slug.evaluation.clip_tasks import Evaluation, Masks, Scores, Target
from slug.evaluation.protocol import score_while_it_can_win
from slug.protocols import OURS, Protocol
from slug.schema import TASKS

IDENTITIES = TASKS[0]
CHUNK = 512  # pictures of a task between two looks at whether a candidate can still win


def forget_rows(evaluation: Evaluation, target: Target, masks: Masks) -> torch.Tensor:
    """Indices (n,) of a target's pictures in one split. SlugError where there are none."""
    rows = evaluation.rows(target.task, masks[target.task], label=target.label)
    if not len(rows):
        raise SlugError(f"one split has no picture of {target.name}; the evaluation needs two or more source images of it")
    return rows


def forget_scores(rank: torch.Tensor, margin: torch.Tensor, k: int = 1) -> dict[str, float]:
    """Accuracies @1, @5 and @k and margins of the forget pictures, (n,) ranks and (n,) margins, as columns."""
    acc1, acc5 = zeroshot.accuracies(rank)
    return {
        "forget_acc1": acc1,
        "forget_acc5": acc5,
        "forget_acck": (rank < k).float().mean().item(),
        "margin": margin.mean().item(),
        "margin_sd": margin.std().item() if len(margin) > 1 else 0.0,
    }


class ClipEvaluator:
    """Zero-shot tasks: FA on the target's pictures, retained accuracy on all others.

    `forget_rows` are the indices of the target's pictures, `retain_rows` {task: indices of the retained pictures}. The
    target's pictures are left out of the retained mean; its name stays among the classes.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        target: Target,
        forget_pairs: Pairs | None,
        masks: Masks,
        *,
        k: int = 1,
        seed: int = 0,
        limit: int | None = None,
        trace: int = 0,
        left_out: Mapping[str, int] | None = None,
        search_rule: str = "robust",
        rule: Rule = selection.STANDARD,
        protocol: Protocol = OURS,
        others: Pairs | None = None,
    ) -> None:
        """
        Args:
            forget_pairs: the forget set, for membership inference; None infers none.
            limit: retained pictures of each task, at most, drawn by `seed`, first those of the first blocks: a block without
                pictures needs no classifier.
            trace: retained pictures of each task that are scored at every step, for plots.
            left_out: {task: label} of pictures that are not retained, besides the target's own.
            search_rule: "paper" brackets the step by FA@k alone.
            rule: when the name is forgotten, and which candidate is kept.
            others: pairs of another corpus, for membership inference by own captions (see Protocol.own_captions).
        """
        self.evaluation, self.target, self.pairs, self.masks = evaluation, target, forget_pairs, masks
        self.k, self.seed, self.search_rule, self.rule, self.protocol = k, seed, search_rule, rule, protocol
        self.forget_rows = forget_rows(evaluation, target, masks)
        without = {**(left_out or {})} | ({} if protocol.name_retained else {target.task: target.label})
        every = {task: evaluation.rows(task, masks[task], without=without.get(task)) for task in evaluation.tasks}
        # The target's own task may hold no other pictures than the target's: then it retains nothing.
        self.retain_rows = {task: found for task, found in every.items() if len(found) or task != target.task}
        self.trace_rows = {}
        for task, rows in self.retain_rows.items():
            pictures = evaluation.tasks[task].pictures
            unlisted = torch.tensor(sorted(pictures.unlisted), dtype=torch.long)
            rows = self.retain_rows[task] = rows[~torch.isin(pictures.labels[rows], unlisted)]
            if limit:
                order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
                order = order[pictures.blocks[pictures.labels[order]].argsort(stable=True)]
                rows = self.retain_rows[task] = order[:limit].sort().values
            if trace:  # spread over the classes of the first block, so that one classifier serves all
                rows = rows[pictures.blocks[pictures.labels[rows]] == pictures.blocks.min()]
                self.trace_rows[task] = rows[torch.linspace(0, len(rows) - 1, min(trace, len(rows))).long()]
        self._known: dict[tuple[str, float], Scores] = {}
        self.own_captions: membership.OwnCaptions | None = None
        if forget_pairs is not None and others is not None:
            self.own_captions = membership.OwnCaptions(evaluation, forget_pairs, others)

    def accuracies(self, task: str, rank: torch.Tensor, rows: torch.Tensor) -> tuple[float, float]:
        """(top-1, top-5) accuracy of a retained task by the ranks (n,) of its pictures `rows` (n,)."""
        if self.by_name(task):
            return zeroshot.class_accuracies(rank, self.evaluation.tasks[task].pictures.labels[rows])
        return zeroshot.accuracies(rank)

    def by_name(self, task: str) -> bool:
        """Whether the accuracy of a task is the mean over its names instead of its pictures."""
        return task == IDENTITIES and self.protocol.mean_over_names

    @functools.cached_property
    def start(self) -> Candidate:
        """The unedited model, everything scored."""
        return self.score(Edit(), log_all=True)

    @property
    def columns(self) -> list[str]:
        """The scores of a candidate, in the order of its table."""
        retained = [f"{task}_acc{k}" for task in self.retain_rows for k in (1, 5)]
        traces = [f"{task}_trace" for task in self.retain_rows]
        margins = ["forget_acck", "margin", "margin_sd", "mia_mean", "mia_std"]
        return ["forget_acc1", "forget_acc5", *retained, *margins, *traces, "seconds"]

    def candidate(self, edit: Edit, scores: dict[str, Any], trace_s: float = 0.0) -> Candidate:
        """The candidate of an edit with these scores; missing ones are NaN, and no other columns are kept."""
        found = {c: scores.get(c, math.nan) for c in self.columns}
        retained = sum(found[f"{task}_acc1"] for task in self.retain_rows) / len(self.retain_rows)
        forgotten = self.rule.forgotten(found)
        progress = float(found["forget_acck"] == 0 and (self.search_rule == "paper" or forgotten))
        preference = self.rule.preference(
            forgotten=forgotten, retained=retained, accuracy=found["forget_acc1"], margin=found["margin"], step=edit.step
        )
        return Candidate(edit, found, forgotten, progress, retained, preference, trace_s)

    def look_ahead(self, direction: Edit, steps: Sequence[float]) -> None:
        """As Evaluator.look_ahead; for edits of one tower."""
        one_tower = len({self.evaluation.clip.tower(n) for n in direction.changes}) == 1
        if one_tower and (direction.layer, steps[0]) not in self._known:
            found = self.evaluation.forget_under_steps(self.target, self.forget_rows, direction, steps)
            new = {(direction.layer, step): scored for step, scored in zip(steps, found, strict=True)}
            self._known = {k: v for k, v in self._known.items() if k[0] == direction.layer} | new

    def score(self, edit: Edit, best: Candidate | None = None, *, log_all: bool = False) -> Candidate:
        """As Evaluator.score."""
        log_all = log_all or self.protocol.every_column
        with self.evaluation.carrying(edit):
            started = time.perf_counter()
            known = self._known.get((edit.layer, edit.step))
            rank, margin = known or self.evaluation.forget(self.target, self.forget_rows)
            scores = forget_scores(rank, margin, self.k)
            if log_all or self.candidate(edit, scores).forgotten:
                bounded = best is not None and best.forgotten and not log_all and not self.protocol.mean_over_names
                beat = best.retained if best is not None and bounded else -math.inf
                if retained := self.retained(beat):
                    scores |= retained | membership.of_edit(self)
            scores["seconds"], started = time.perf_counter() - started, time.perf_counter()
            for task, rows in self.trace_rows.items():
                scores[f"{task}_trace"] = zeroshot.accuracies(self.evaluation.ranks(task, rows))[0]
        return self.candidate(edit, scores, time.perf_counter() - started)

    def retained(self, beat: float = -math.inf) -> dict[str, float]:
        """Retained accuracies as columns, or {} as soon as their mean cannot reach `beat` any more. Pictures that the
        unedited model gets wrong come first, then those that it gets right by the least margin."""
        done: dict[str, list[torch.Tensor]] = {task: [] for task in self.retain_rows}
        parts, scores, ordered = {}, {}, {}
        for task, rows in self.retain_rows.items():
            rows = ordered[task] = rows[self.evaluation.tasks[task].margins[rows].argsort(stable=True)]
            parts[task] = rows.split(CHUNK if beat > -math.inf else max(len(rows), 1))

        def rounds() -> Iterator[dict[str, torch.Tensor]]:
            for number in range(max(map(len, parts.values()))):
                now = {t: self.evaluation.ranks(t, part[number]) for t, part in parts.items() if number < len(part)}
                for task, ranks in now.items():
                    done[task].append(ranks)
                yield {task: ranks < 1 for task, ranks in now.items()}

        sizes = {task: len(rows) for task, rows in self.retain_rows.items()}
        if score_while_it_can_win(rounds(), sizes, beat=beat).complete:
            for task, ranks in done.items():
                found = self.accuracies(task, torch.cat(ranks), ordered[task])
                scores[f"{task}_acc1"], scores[f"{task}_acc5"] = found
        return scores

    def ranks(self) -> dict[str, torch.Tensor]:
        """{"forget" or task: ranks of the split's pictures} under the edit that the model carries."""
        own = {"forget": self.evaluation.ranks(self.target.task, self.forget_rows)}
        return own | {task: self.evaluation.ranks(task, rows) for task, rows in self.retain_rows.items()}
