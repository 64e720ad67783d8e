"""Scores edits of a CLIP for one name on one split of the evaluation."""

import math
import time

import torch

from slug.core import selection
from slug.core.edit import edit_of
from slug.errors import SlugError
from slug.evaluation import zeroshot
from slug.evaluation.membership import membership

RETAIN_CHUNK = 512  # pictures between two looks at whether a candidate can still win


def forget_rows(evaluation, target, split):
    """Indices (N,) of a target's pictures in one split, {task: (N,) bool}. SlugError where there are none."""
    rows = evaluation.rows(target.task, split[target.task], label=target.label)
    if not len(rows):
        raise SlugError(f"a half of the evaluation has no picture of {target.name}; it needs two groups or more of it")
    return rows


def forget_step(layer, step, rank, margin, *, k=1):
    """search.Step of the forget pictures alone.

    Args:
        rank, margin: (N,) each, see zeroshot.Evaluation.forget.
        k: of FA@k.
    """
    spread = margin.std().item() if len(margin) > 1 else 0.0
    row = selection.Step(layer, step, *zeroshot.accuracies(rank), margin=margin.mean().item(), margin_sd=spread)
    return row._replace(forget_acck=(rank < k).float().mean().item())


class Judge:
    """Scores the model's present weights for one target on one half of the evaluation."""

    def __init__(self, clip, evaluation, target, forget_pairs, split, *, k=1, seed=0, limit=None, trace=0, mia=True):
        """
        Args:
            split: {task: (N,) bool}, the half's pictures.
            k: the rank of FA@k, which brackets the step.
            limit: at most this many retain pictures a task, drawn by `seed`, those of the first blocks first (a block that
                is not touched needs no classifier).
            trace: score this many of them a task, of the first block, at every step, so that plots have a value even where
                the rest is not worth it.
            mia: infer membership wherever the retain sets are scored, which takes longer than they do in a small world.
        """
        self.mia = mia
        self.clip, self.evaluation, self.target = clip, evaluation, target
        self.pairs, self.split, self.k, self.seed = forget_pairs, split, k, seed
        self.forget_rows = forget_rows(evaluation, target, split)
        # The forgotten name's pictures leave the retain mean (trap 10); its name stays among the classes.
        self.retain_rows = {
            task: evaluation.rows(task, split[task], without=target.label if task == target.task else None)
            for task in evaluation.tasks
        }
        for task, rows in self.retain_rows.items() if limit else ():
            pictures = evaluation.tasks[task].pictures
            order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
            order = order[pictures.blocks[pictures.labels[order]].argsort(stable=True)]
            self.retain_rows[task] = order[:limit].sort().values
        self.trace_s = 0.0  # what plots cost is no part of a search's time
        self.trace_rows = {task: self._spread(task, rows, trace) for task, rows in self.retain_rows.items() if trace}

    winner = staticmethod(selection.winner)

    def applied(self, edit):
        """Context within which the model carries an edit, {parameter name: tensor to add}."""
        return self.evaluation.applied(edit)

    def _spread(self, task, rows, count):
        """`count` of `rows`, spread over the classes of the first block (pictures stand class by class): one classifier
        serves them."""
        pictures = self.evaluation.tasks[task].pictures
        rows = rows[pictures.blocks[pictures.labels[rows]] == pictures.blocks.min()]
        return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]

    def ranks(self, edited):
        """{"forget", "identities", "objects"} -> ranks of the half's pictures under the present weights."""
        out = {"forget": self.evaluation.ranks(self.target.task, self.forget_rows, edited)}
        return out | {task: self.evaluation.ranks(task, rows, edited) for task, rows in self.retain_rows.items()}

    def retain(self, edited, beat=-math.inf):
        """Retain accuracies as columns of search.Step, or {} as soon as their mean cannot exceed `beat` any more.

        Pictures the unedited model gets wrong come first, then those it gets right by the least: the sum of what is
        correct so far and all that is left is an exact upper bound, and falls below `beat` early where an edit harms.
        """
        bound = dict.fromkeys(self.retain_rows, 1.0)  # upper bound of each task's accuracy
        done = {task: [] for task in self.retain_rows}
        chunks = {}
        for task, rows in self.retain_rows.items():
            rows = rows[self.evaluation.tasks[task].margins[rows].argsort(stable=True)]
            chunks[task] = rows.split(RETAIN_CHUNK if beat > -math.inf else max(len(rows), 1))
        for number in range(max(map(len, chunks.values()))):
            for task, parts in chunks.items():
                if number < len(parts):
                    done[task].append(self.evaluation.ranks(task, parts[number], edited))
                    wrong = sum(int((r >= 1).sum()) for r in done[task])
                    bound[task] = 1 - wrong / len(self.retain_rows[task])
            if sum(bound.values()) / len(bound) < beat - 1e-6:  # `beat` is of float32 means: a tie must not fall below it
                return {}
        scores = {}
        for task, parts in done.items():
            scores[f"{task}_acc1"], scores[f"{task}_acc5"] = zeroshot.accuracies(torch.cat(parts))
        return scores

    def forget_steps(self, layer, forget, steps):
        """{step: (ranks, margins)} of the forget pictures for several steps of a layer, in one pass.

        Args:
            forget: {parameter name: gradient}.
        """
        edit = edit_of(self.clip, layer, forget, 1.0)
        found = self.evaluation.forget_steps(self.target, self.forget_rows, layer, edit, steps)
        return dict(zip(steps, found, strict=True))

    def step(self, layer, step, edited, *, best=None, log_all=False, known=None):
        """Score the present weights: search.Step.

        Args:
            layer, step: what was done to the weights, for the record.
            edited: see Evaluation.sides.
            best: the best candidate so far; the costly retain sets are scored only where this one forgets and can still
                win against it.
            log_all: score everything.
            known: (ranks, margins) of the forget pictures, where `forget_steps` has them.
        """
        started = time.perf_counter()
        with self.evaluation.same_weights():
            rank, margin = known or self.evaluation.forget(self.target, self.forget_rows, edited)
            row = forget_step(layer, step, rank, margin, k=self.k)
            if log_all or row.forgets:
                beat = best.retain if best is not None and best.forgets and not log_all else -math.inf
                scores = self.retain(edited, beat)
                if scores:
                    row = row._replace(**scores)
                if scores and self.mia:
                    mia = membership(self.clip, self.evaluation, self.target, self.pairs, self.split, edited, self.seed)
                    row = row._replace(mia_mean=mia["mia_mean"], mia_std=mia["mia_std"])
            seconds, started = time.perf_counter() - started, time.perf_counter()
            for task, rows in self.trace_rows.items():
                share = zeroshot.accuracies(self.evaluation.ranks(task, rows, edited))[0]
                row = row._replace(**{f"{task}_trace": share})
        self.trace_s += time.perf_counter() - started
        return row._replace(seconds=seconds)
