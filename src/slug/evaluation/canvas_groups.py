"""The evaluator of edits by which a pipeline forgets several concepts at once, by generated pictures."""

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from slug.core.edit import Edit
from slug.core.selection import Candidate
from slug.data.canvas import KINDS
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.canvas_classifiers import Judge, correct
from slug.evaluation.canvas_prompts import Concept, Request
from slug.evaluation.unlearncanvas import reached
from slug.models.diffusion import BrokenPictures


def retained(group: Sequence[Concept], asked: Sequence[Request]) -> torch.Tensor:
    """(N,) bool: which of N Requests show no concept of a group. SlugError where all show one."""
    rest = ~torch.tensor([c.shown_by(asked) for c in group]).any(0)
    if not rest.any():
        raise SlugError(f"every prompt shows one of {', '.join(c.name for c in group)}; leave one out")
    return rest


def drawn(asked: Sequence[Request], most: int, seed: int) -> list[Request]:
    """Up to `most` Requests, drawn by a seed."""
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(seed))
    return [asked[i] for i in order[:most].tolist()]


def column(concept: Concept) -> str:
    """The column of a candidate's scores that holds the UA of a concept."""
    return f"UA {concept.kind} {concept.plain.name}"


class GroupEvaluator:
    """Scores edits for several concepts on one split (see evaluation.protocol.Evaluator).

    Of the candidates that keep the share of styles and of objects recognised above their floors, the one is kept that
    reaches most, as the mean over the concepts of what unlearncanvas.reached says, and then retains most.

    Attributes:
        start: the unedited pipeline.
        own: {concept: Requests that show it}.
        others: Requests that show none of them.
    """

    def __init__(
        self,
        diffusion: Any,
        judge: Judge,
        asked: Sequence[Request],
        group: Sequence[Concept],
        *,
        wanted: float,
        keep: float,
        own: int,
        others: int,
        seed: int = 0,
    ) -> None:
        """
        Args:
            diffusion: models.diffusion.Diffusion at its original weights.
            asked: Requests of the split that chooses.
            wanted: UA from which on a concept is forgotten.
            keep: share of the original's accuracy on styles, and on objects, that a candidate must keep.
            own, others: pictures of each concept, and of none, at most.
        """
        self.diffusion, self.judge, self.wanted = diffusion, judge, wanted
        rest = retained(group, asked)
        self.own = {c: drawn([r for r, m in zip(asked, c.shown_by(asked), strict=True) if m], own, seed) for c in group}
        self.others = drawn([r for r, kept in zip(asked, rest.tolist(), strict=True) if kept], others, seed)
        without = next((c.name for c, mine in self.own.items() if not mine), None)
        if without:
            raise SlugError(f"the prompts have no pictures of {without} to choose by; make other prompts")
        self._floors: dict[str, float] = {}
        self.start = self.score(Edit())
        self._floors = {kind: keep * self.start.scores[kind] for kind in judge.labels}

    def score(self, edit: Edit, best: Candidate | None = None) -> Candidate:
        """The candidate of an edit; retained pictures are made only where it reaches as much as `best` does."""
        started, so_far = time.perf_counter(), best.preference[0] if best and best.preference else -math.inf
        row: dict[str, Any] = {"reached": math.nan, **dict.fromkeys(KINDS, math.nan), "kept": False}
        try:
            with edit.applied(self.diffusion):
                each = {c: self._forgetting(c) for c in self.own}
                row |= {column(c): ua for c, (ua, _) in each.items()}
                row["reached"] = statistics.fmean(far for _, far in each.values())
                if row["reached"] >= so_far:
                    row |= self._retaining()
        except BrokenPictures as err:
            if not self._floors:
                raise
            print(f"not scored: {err}")
        known = [row[k] for k in KINDS if not math.isnan(row[k])]
        mean = statistics.fmean(known) if known else math.nan
        row["seconds"] = time.perf_counter() - started
        done = row["reached"] >= self.wanted - 1e-9
        return Candidate(edit, row, done, 0.0, mean, (row["reached"], mean) if row["kept"] else None)

    def settled(self, best: Candidate | None) -> bool:
        """Whether the best candidate forgets everything and retains as much as the unedited pipeline."""
        return best is not None and best.forgotten and best.retained >= self.start.retained

    def _forgetting(self, concept: Concept) -> tuple[float, float]:
        """(UA, what is reached) of a concept's own pictures."""
        asked, kind = self.own[concept], concept.kind
        logits = self.judge.logits(self.diffusion.generate([r.prompt for r in asked], [r.seed for r in asked]))
        label = [plain_name(n) for n in self.judge.labels[kind]].index(plain_name(concept.name))
        rivals = logits[kind].clone()
        rivals[:, label] = -torch.inf
        margins = (logits[kind][:, label] - rivals.max(1).values).tolist()
        ua = 1 - correct(asked, logits, self.judge.labels)[kind].float().mean().item()
        spread = statistics.stdev(margins) if len(margins) > 1 else 0.0
        return ua, reached(ua, statistics.fmean(margins), spread, self.wanted)

    def _retaining(self) -> dict[str, Any]:
        """The share of each kind recognised in pictures of no concept, and whether all are above their floors."""
        asked = self.others
        logits = self.judge.logits(self.diffusion.generate([r.prompt for r in asked], [r.seed for r in asked]))
        right = correct(asked, logits, self.judge.labels)
        shares = {kind: hits.float().mean().item() for kind, hits in right.items()}
        return {**shares, "kept": all(shares[kind] >= floor for kind, floor in self._floors.items())}
