"""Scores edits of an assistant for one name by its answers to questions (see evaluation.protocol.Evaluator)."""

import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from slug.core import selection
from slug.core.edit import Edit
from slug.core.selection import Candidate
from slug.errors import SlugError
from slug.evaluation.protocol import score_while_it_can_win
from slug.evaluation.questions import PARTS, RETAINED, Marker, Question, sides

# Chosen on Penguin, Crab, Princess and Tiger, for which no figure is reported.
SIGMAS = 3.0
CHUNK = 32  # questions of a task between two looks at whether a candidate can still win


class AssistantEvaluator:
    """Asks for the forgotten name, and asks the questions of the retained tasks where a candidate can still win.

    A name is forgotten if few enough of all answers hold it, of source images that training contained and of others alike.
    The margins are those of the former, for which the rule's constant was chosen; where there are none, those of all.

    Attributes:
        asked: {part: the split's questions}; a part may be empty.
    """

    columns = (
        *(f"{part}_acc" for part in PARTS),
        "forget_seen_acc",
        "forget_unseen_acc",
        "margin",
        "margin_sd",
        "wanted",
        "sigmas",
        "seconds",
    )

    def __init__(
        self,
        vlm: Any,
        found: Sequence[Question],
        name: str,
        *,
        split: str = "validation",
        wanted: float = 0.0,
        sigmas: float = SIGMAS,
    ) -> None:
        """
        Args:
            vlm: models.vlm.Vlm.
            found: the questions of all splits.
            wanted: forget accuracy up to which the name may count as forgotten.
            sigmas: standard deviations by which the margins of a forgotten name must lie below 0.
        Raises:
            SlugError: no question of the split asks for the name, or none asks for anything else.
        """
        self.vlm, self.marker, self.rule = vlm, Marker(found), {"wanted": wanted, "sigmas": sigmas}
        mine = [q for q in found if q.split == split]
        rows = sides(mine, name)
        self.asked = {p: [mine[i] for i in rows[f"{p}_all"]] for p in PARTS}
        self.seen = torch.tensor([q.seen for q in self.asked["forget"]], dtype=torch.bool)
        if not self.asked["forget"] or not any(self.asked[p] for p in RETAINED):
            raise SlugError(f"the {split} split has no question about {name}, or none about anything else; add questions")

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of questions as columns."""
        seen = int(self.seen.sum())
        found = {f"n_{part}": len(asked) for part, asked in self.asked.items()}
        return found | {"n_forget_seen": seen, "n_forget_unseen": found["n_forget"] - seen}

    @functools.cached_property
    def start(self) -> Candidate:
        """The unedited model, everything scored.

        From then on the questions that it answers wrongly come first, then those that it answers right by the least margin:
        a candidate that cannot win is then given up after the first of them.
        """
        candidate = self.score(Edit(), log_all=True)
        for part, margins in self._margins.items():
            order = torch.cat(margins).argsort(stable=True).tolist()
            self.asked[part] = [self.asked[part][i] for i in order]
        return candidate

    def score(self, edit: Edit, best: Candidate | None = None, *, log_all: bool = False) -> Candidate:
        """As Evaluator.score."""
        started = time.perf_counter()
        with edit.applied(self.vlm):
            right, margin = self._ask(self.asked["forget"])
            scores = {"forget_acc": int(right.sum()) / len(right)}
            for side, rows in (("seen", self.seen), ("unseen", ~self.seen)):
                scores[f"forget_{side}_acc"] = int(right[rows].sum()) / int(rows.sum()) if rows.any() else math.nan
            judged = margin[self.seen] if self.seen.any() else margin
            spread = judged.std().item() if len(judged) > 1 else 0.0
            scores |= {"margin": judged.mean().item(), "margin_sd": spread}
            if log_all or self.candidate(edit, scores).forgotten:
                beat = best.retained if best is not None and best.forgotten and not log_all else -math.inf
                scores |= self._retained(beat)
        return self.candidate(edit, scores | {"seconds": time.perf_counter() - started})

    def look_ahead(self, direction: Edit, steps: Sequence[float]) -> None:
        """As Evaluator.look_ahead: nothing, since an answer depends on every block after the edited one."""

    def candidate(self, edit: Edit, scores: Mapping[str, float]) -> Candidate:
        """The record of an edit; scores that are missing are NaN."""
        found = {c: {**scores, **self.rule}.get(c, math.nan) for c in self.columns}
        known = [x for part in RETAINED if not math.isnan(x := found[f"{part}_acc"])]
        retained = sum(known) / len(known) if known else math.nan
        accuracy, margin, spread = found["forget_acc"], found["margin"], found["margin_sd"]
        forgotten = selection.forgets(accuracy, margin, spread, most=found["wanted"], sigmas=found["sigmas"])
        progress = 1.0 if forgotten else 0.99 * (1 - accuracy)
        preference = selection.preference(
            forgotten=forgotten, retained=retained, accuracy=accuracy, margin=margin, step=edit.step
        )
        return Candidate(edit, found, forgotten, progress, retained, preference)

    def _ask(self, asked: Sequence[Question]) -> tuple[torch.Tensor, torch.Tensor]:
        """(whether each answer is right (n,) bool, margins (n,))."""
        said, margin = self.vlm.ask(asked)
        return torch.tensor([self.marker.right(q, s) for q, s in zip(asked, said, strict=True)], dtype=torch.bool), margin

    def _retained(self, beat: float) -> dict[str, float]:
        """Retained accuracies as columns, or {} as soon as their mean cannot reach `beat` any more."""
        tasks = {p: self.asked[p] for p in RETAINED if self.asked[p]}
        self._margins: dict[str, list[torch.Tensor]] = {p: [] for p in tasks}  # of the questions that were asked last

        def rounds() -> Iterator[dict[str, torch.Tensor]]:
            for start in range(0, max(map(len, tasks.values())), CHUNK):
                right = {}
                for task, asked in tasks.items():
                    if part := asked[start : start + CHUNK]:
                        right[task], margin = self._ask(part)
                        self._margins[task].append(margin)
                yield right

        found = score_while_it_can_win(rounds(), {p: len(asked) for p, asked in tasks.items()}, beat=beat)
        return {f"{p}_acc": bound for p, bound in found.values.items()} if found.complete else {}
