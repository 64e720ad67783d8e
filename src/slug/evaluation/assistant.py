"""The judge of an assistant's edits by its answers to questions."""

import math
import time
from typing import NamedTuple

import torch

from slug.core import selection
from slug.core.edit import applied
from slug.errors import SlugError
from slug.evaluation.questions import PARTS, STAY, Marker, parts

# Settled on Penguin, Crab, Princess and Tiger, none of which is reported: README, Vision-language models.
SIGMAS = 3.0


class Step(NamedTuple):
    """One candidate on one split, as search.Step is for zero-shot accuracies."""

    layer: str
    step: float
    forget_acc: float  # of the forgotten name, over all wordings
    identities_acc: float = math.nan  # of naming others
    objects_acc: float = math.nan
    utility_acc: float = math.nan  # of what else is asked
    margin: float = math.nan  # mean over the name's questions, see Vlm.ask
    margin_sd: float = math.nan
    wanted: float = 0.0  # forget accuracy up to which the name counts as forgotten
    sigmas: float = SIGMAS
    seconds: float = math.nan

    @property
    def forget_acc1(self):
        """As search.Step calls it."""
        return self.forget_acc

    @property
    def forgets(self):
        """Whether the name is forgotten, as counted and as estimated: few drawings sit on the brink and are none the less
        zero, so the margins must also lie `sigmas` deviations below 0."""
        return self.forget_acc <= self.wanted + 1e-9 and selection.below(self.margin, self.margin_sd, self.sigmas)

    def progress(self, rule):
        """What search.next_step is told: 1 where the name is forgotten, else a part of the way to it."""
        return 1.0 if self.forgets else 0.99 * (1 - self.forget_acc)

    @property
    def retain(self):
        """What a step is chosen by: the mean of what must stay."""
        known = [x for x in (self.identities_acc, self.objects_acc, self.utility_acc) if not math.isnan(x)]
        return sum(known) / len(known) if known else math.nan


CHUNK = 32  # questions of a part between two looks at whether a candidate can still win


class Judge:
    """Scores the assistant's present weights for one name on questions of one half; see unlearn.Judge."""

    def __init__(self, vlm, found, name, *, split="validation", wanted=0.0, sigmas=SIGMAS):
        """
        Args:
            vlm: models.vlm.Vlm.
            found: [Question]; those of `half` are asked.
            wanted, sigmas: see Step.
        Raises:
            SlugError: nothing of the half asks for the name, or nothing for anything else.
        """
        self.vlm, self.name, self.marker = vlm, name, Marker(found)
        self.rule = {"wanted": wanted, "sigmas": sigmas}
        mine = [q for q in found if q.split == split]
        rows = parts(mine, name)
        self.asked = {p: [mine[i] for i in sorted(rows[p] + rows[f"{p}_unseen"])] for p in PARTS}
        if not self.asked["forget"] or not any(self.asked[p] for p in STAY):
            raise SlugError(
                f"the questions' {split} half has none about {name}, or about nothing else; give other questions"
            )

    winner = staticmethod(selection.winner)

    def applied(self, edit):
        """Context within which the model carries an edit."""
        return applied(self.vlm, edit)

    def original(self):
        """Score the unedited model: Step. From then on what it answers wrongly, or right by the least, is asked first."""
        row = self.step("", 0.0, None, log_all=True)
        for part, margins in self.margins.items():
            order = torch.cat(margins).argsort(stable=True).tolist()
            self.asked[part] = [self.asked[part][i] for i in order]
        return row

    def step(self, layer, step, edited, *, best=None, log_all=False, known=None):
        """Score the present weights: Step. What must stay is asked only where the name is forgotten, and only until the
        bound on what can still be reached falls below the best candidate's; after `original` that is soon."""
        started = time.perf_counter()
        said, margin = self.vlm.ask(self.asked["forget"])
        right = [self.marker.right(q, s) for q, s in zip(self.asked["forget"], said, strict=True)]
        row = Step(layer, step, sum(right) / len(right), margin=margin.mean().item(), **self.rule)
        row = row._replace(margin_sd=margin.std().item() if len(margin) > 1 else 0.0)
        if log_all or row.forgets:
            beat = best.retain if best is not None and best.forgets and not log_all else -math.inf
            row = row._replace(**self._retain(beat))
        return row._replace(seconds=time.perf_counter() - started)

    def _retain(self, beat):
        self.margins = {}  # {part: [margins of a chunk]} of what was asked last
        stay = {p: self.asked[p] for p in STAY if self.asked[p]}
        wrong, bound = dict.fromkeys(stay, 0), dict.fromkeys(stay, 1.0)
        for start in range(0, max(map(len, stay.values())), CHUNK):
            for part, rows in stay.items():
                chunk = rows[start : start + CHUNK]
                said, margin = self.vlm.ask(chunk)
                self.margins.setdefault(part, []).append(margin)
                wrong[part] += sum(not self.marker.right(q, s) for q, s in zip(chunk, said, strict=True))
                bound[part] = 1 - wrong[part] / len(rows)
            if sum(bound.values()) / len(bound) < beat:
                return {}
        return {f"{p}_acc": b for p, b in bound.items()}
