"""UA, IRA and CRA of the UnlearnCanvas protocol, and the evaluator of a pipeline's edits by generated pictures."""

import collections
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from slug.core.edit import Edit
from slug.core.selection import Candidate
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.canvas_classifiers import Answers, Judge, correct
from slug.evaluation.canvas_prompts import OTHER, Concept, Request, check_known, paintings
from slug.evaluation.protocol import score_while_it_can_win
from slug.models.diffusion import BrokenPictures
from slug.protocols import OURS, Protocol

CHUNK = 32  # pictures between two looks at whether a candidate can still win
PARTS = 3  # of the forgotten concept's pictures; after each, a candidate that is far behind is given up
IRA_CHANGE = 0.1  # the published search of a layer ends where IRA changes by less, and the concept is not recognised
COLUMNS = ("UA", "IRA", "CRA", "margin", "margin_sd", "wanted", "kept", "seconds")


class Scores(NamedTuple):
    """UnlearnCanvas's figures of one forgotten concept, fractions; NaN where no picture tells.

    Attributes:
        UA: unlearning accuracy: pictures of the concept that the judge does not take for it.
        IRA: in-domain retained accuracy: other concepts of its kind, on pictures that do not show it.
        CRA: cross-domain retained accuracy: concepts of the other kind, on the same pictures.
    """

    UA: float
    IRA: float
    CRA: float


def scores(concept: Concept, asked: Sequence[Request], right: Answers, drawn: torch.Tensor | None = None) -> Scores:
    """Scores of the pictures of N Requests.

    Args:
        right: see canvas_classifiers.correct.
        drawn: (N,) bool, the pictures that count; all by default.
    """
    drawn = torch.ones(len(asked), dtype=torch.bool) if drawn is None else drawn
    shown = torch.tensor(concept.shown_by(asked))
    own, others = shown & drawn, ~shown & drawn

    def share(kind: str, rows: torch.Tensor) -> float:
        return right[kind][rows].float().mean().item() if kind in right and rows.any() else math.nan

    return Scores(1 - share(concept.kind, own), share(concept.kind, others), share(OTHER[concept.kind], others))


def of_paintings(two: Sequence[Request], right: Answers, drawn: torch.Tensor | None = None) -> float:
    """The published CRA: the share of the pictures of `paintings` that the judge takes for what was asked for.

    Of these only the `drawn` ones count, (N,) bool; by default all.
    """
    asked = [(i, r) for i, r in enumerate(two) if drawn is None or drawn[i]]
    told = [(kind, i) for i, r in asked for kind in ("style", "object") if getattr(r, kind) and kind in right]
    return statistics.fmean(right[kind][i].item() for kind, i in told) if told else math.nan


def reached(ua: float, margin: float, margin_sd: float, wanted: float) -> float:
    """UA as counted and as estimated, the lower of the two, and at most `wanted`: a higher UA is no merit.

    The estimate is the UA that a normal fit to the margins expects of other pictures: of few pictures none may be recognised
    although all are close to it. Margins without spread allow no estimate.
    """
    estimate = 0.5 * math.erfc(margin / (margin_sd * math.sqrt(2))) if margin_sd > 0 else ua
    return min(ua, estimate, wanted)


class CanvasEvaluator:
    """Scores edits of a pipeline for one concept on generated pictures of one split (see evaluation.protocol.Evaluator).

    Of the candidates that keep IRA and CRA above their floors the one that reaches most is kept, then the one with the
    highest retained accuracy, the mean of IRA and CRA.

    Attributes:
        start: the unedited pipeline, everything scored.
        own, others: Requests that show the concept, and Requests that do not.
    """

    def __init__(
        self,
        diffusion: Any,
        judge: Judge,
        asked: Sequence[Request],
        concept: Concept,
        *,
        wanted: float,
        keep: float,
        others: int,
        split: str = "validation",
        seed: int = 0,
        protocol: Protocol = OURS,
    ) -> None:
        """
        Args:
            diffusion: models.diffusion.Diffusion at its original weights.
            asked: Requests; only those of `split` are used.
            wanted: UA from which on a candidate forgets, as counted and as estimated.
            keep: share of the original's IRA, and of its CRA, that a candidate must keep.
            others: pictures of other concepts, at most, drawn from all cells by `seed`.
            protocol: says what CRA is of, and when the search of a layer ends.
        """
        self.diffusion, self.judge, self.concept, self.wanted = diffusion, judge, concept, wanted
        self.protocol = protocol
        asked = [r for r in asked if r.split == split]
        check_known(asked, judge.labels)
        shown = concept.shown_by(asked)
        self.own = [r for r, mine in zip(asked, shown, strict=True) if mine]
        rest = [r for r, mine in zip(asked, shown, strict=True) if not mine]
        order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
        self.others = [rest[i] for i in order[:others].tolist()]
        if not self.own or not self.others:
            what = f"the {concept.kind} {concept.name}" if not self.own else "other concepts"
            raise SlugError(f"the prompts' {split} split has no pictures of {what}; make other prompts")
        self.two = paintings(concept, asked) if protocol.canvas_two_pictures else []
        self._label = [plain_name(n) for n in judge.labels[concept.kind]].index(plain_name(concept.name))
        self._floors: dict[str, float] = {}
        self._missed: collections.Counter[Request] = collections.Counter()
        self._ira = math.nan  # of the unedited pipeline
        self.start = self.score(Edit(), log_all=True)
        self._ira = self.start.scores["IRA"]
        known = {n: self.start.scores[n] for n in ("IRA", "CRA")}
        self._floors = {n: keep * value for n, value in known.items() if not math.isnan(value)}

    def candidate(self, edit: Edit, found: Mapping[str, Any]) -> Candidate:
        """The candidate of an edit with these scores, which may be those of a record."""
        row = {c: found.get(c, math.nan) for c in COLUMNS} | {"wanted": self.wanted, "kept": found.get("kept")}
        far = self._reached(row)
        forgotten = self.wanted - 1e-9 <= far
        known = [x for x in (row["IRA"], row["CRA"]) if not math.isnan(x)]
        retained = sum(known) / len(known) if known else math.nan
        # A step that goes too far ends the search upwards as one that forgets does.
        progress = 1.0 if forgotten or row["kept"] is False else min(far / self.wanted, 0.99)
        if self.protocol.canvas_stop and row["UA"] == 1 and not abs(row["IRA"] - self._ira) >= IRA_CHANGE:
            progress = 2.0
        return Candidate(edit, row, forgotten, progress, retained, (far, retained) if row["kept"] else None)

    def look_ahead(self, direction: Edit, steps: Sequence[float]) -> None:
        """As Evaluator.look_ahead: nothing is gained by it, since every picture is generated anew."""

    def settled(self, best: Candidate | None) -> bool:
        """Whether the search may end: the best candidate forgets and retains as much as the unedited pipeline.

        What would retain more owes it to the draw of the pictures.
        """
        if self.protocol.canvas_stop or best is None or best is self.start:
            return False
        return best.forgotten and best.retained >= self.start.retained

    def score(self, edit: Edit, best: Candidate | None = None, *, log_all: bool = False) -> Candidate:
        """As Evaluator.score. The concept's own pictures, too, are made only while the candidate is not far behind."""
        started = time.perf_counter()
        so_far = best.preference[0] if best is not None and best.preference else -math.inf
        so_far = -math.inf if self.protocol.every_column else so_far
        try:
            with edit.applied(self.diffusion):
                found = self._forgetting(so_far / 2)
                far = self._reached(found)
                if log_all or self.protocol.every_column or so_far <= far > 0:
                    beat = best.retained if best is not None and so_far == far and not log_all else -math.inf
                    found |= self._retaining(beat)
        except BrokenPictures as err:
            if log_all:  # the unedited pipeline, or a final figure
                raise
            print(f"not scored: {err}")
            found = {"kept": False}  # a step that went too far, without figures
        return self.candidate(edit, found | {"seconds": time.perf_counter() - started})

    def pictures(self, asked: Sequence[Request]) -> tuple[Answers, dict[str, torch.Tensor]]:
        """(whether each is taken for what was asked for, logits) of pictures under the present weights."""
        logits = self.judge.logits(self.diffusion.generate([r.prompt for r in asked], [r.seed for r in asked]))
        return correct(asked, logits, self.judge.labels), logits

    def _reached(self, found: Mapping[str, Any]) -> float:
        spread = found["margin_sd"] if self.protocol.margin_rule else 0.0  # without spread UA is as counted
        return reached(found["UA"], found["margin"], spread, self.wanted)

    def _forgetting(self, least: float) -> dict[str, float]:
        """UA and margins of the concept's own pictures: of the first parts only, if these reach less than `least`.

        A margin is the concept's logit less that of the best other label.
        """
        right, margins, kind, found = [], [], self.concept.kind, {}
        for part in torch.arange(len(self.own)).chunk(PARTS):
            answers, logits = self.pictures([self.own[i] for i in part.tolist()])
            rivals = logits[kind].clone()
            rivals[:, self._label] = -torch.inf
            right += answers[kind].tolist()
            margins += (logits[kind][:, self._label] - rivals.max(1).values).tolist()
            spread = statistics.stdev(margins) if len(margins) > 1 else 0.0
            found = {"UA": 1 - sum(right) / len(right), "margin": statistics.fmean(margins), "margin_sd": spread}
            if self._reached(found) < least:
                break
        return found

    def _retaining(self, beat: float) -> dict[str, Any]:
        """IRA, CRA and `kept`, whether they stay above the floors.

        Without IRA and CRA where one falls below its floor; nothing where their mean cannot reach `beat`.
        """
        tasks = {self.concept.kind: "IRA", OTHER[self.concept.kind]: "CRA"}
        judged = [kind for kind in self.judge.labels if not self.two or tasks[kind] == "IRA"]
        # What earlier candidates missed most often comes first, so that the bounds fall early.
        others = sorted(self.others, key=lambda r: -self._missed[r])

        def rounds() -> Iterator[dict[str, torch.Tensor]]:
            for first in range(0, len(others), CHUNK):
                part = others[first : first + CHUNK]
                answers, _ = self.pictures(part)
                for right in answers.values():
                    self._missed.update(r for r, hit in zip(part, right.tolist(), strict=True) if not hit)
                yield {tasks[kind]: answers[kind] for kind in judged}

        sizes = {tasks[kind]: len(others) for kind in judged}
        floors = {task: floor for task, floor in self._floors.items() if task in sizes}
        bounds = score_while_it_can_win(rounds(), sizes, beat=beat, floors=floors)
        if not bounds.above_floors:
            return {"kept": False}
        if not bounds.complete:
            return {}
        published = {"CRA": of_paintings(self.two, self.pictures(self.two)[0])} if self.two else {}
        kept = all(value >= self._floors.get(task, value) for task, value in published.items())
        return bounds.values | published | {"kept": kept}
