"""UA, IRA and CRA, and the judge of a pipeline's edits on generated pictures."""

import collections
import math
import statistics
import time
from typing import NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before timm)

import torch
from torchvision import transforms

from slug.core.edit import applied
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.canvas_prompts import OTHER, shows

CHUNK = 32  # pictures between two looks at whether a candidate can still win


THIRDS = 3  # parts of the forgotten concept's own pictures; after each a candidate that is far behind is given up


class Scores(NamedTuple):
    """Of one unlearned concept, fractions; NaN where no picture says anything."""

    UA: float
    IRA: float
    CRA: float


def check_known(asked, labels):
    """SlugError where a classifier has no label for what a Request asks for.

    Args:
        labels: see Classifiers.
    """
    for kind, names in labels.items():
        known = dict.fromkeys(plain_name(n) for n in names)
        missing = sorted({plain_name(getattr(r, kind)) for r in asked} - set(known) - {""})
        if missing:
            some = ", ".join(list(known)[:8])
            raise SlugError(f"the {kind} classifier does not know {missing[0]!r}; ask for what it knows: {some}, ...")


def correct(asked, logits, labels):
    """{kind: (N,) bool}: whether each classifier takes a picture for what was asked for.

    Args:
        asked: N Requests.
        logits, labels: see Classifiers.
    """
    check_known(asked, labels)
    out = {}
    for kind, found in logits.items():
        known = {plain_name(n): i for i, n in enumerate(labels[kind])}
        wanted = torch.tensor([known.get(plain_name(getattr(r, kind)), -1) for r in asked])
        out[kind] = found.argmax(1) == wanted
    return out


def scores(kind, name, asked, right):
    """Scores of pictures.

    Args:
        kind: "style" or "object", of the forgotten concept `name`.
        asked: N Requests.
        right: see `correct`.
    """
    own = torch.tensor(shows(kind, name, asked))

    def share(which, rows):
        return right[which][rows].float().mean().item() if which in right and rows.any() else math.nan

    return Scores(1 - share(kind, own), share(kind, ~own), share(OTHER[kind], ~own))


class Step(NamedTuple):
    """One candidate on the validation split, as search.Step is for zero-shot accuracies."""

    layer: str
    step: float
    UA: float
    IRA: float = math.nan
    CRA: float = math.nan
    margin: float = math.nan  # mean logit of the forgotten concept less that of the best other one, on its own prompts
    margin_sd: float = math.nan
    wanted: float = 0.9  # UA from which on the concept counts as forgotten
    kept: bool | None = None  # whether IRA and CRA stay above the floors; None where that was not found out
    seconds: float = math.nan

    @property
    def forget_acc1(self):
        """Accuracy of the forgotten concept on its own prompts."""
        return 1 - self.UA

    @property
    def expected(self):
        """UA that a normal fit to the margins expects of other pictures: of few pictures none may be recognised, and all be
        on the brink. UA itself where there is no spread to go by."""
        if not self.margin_sd > 0:
            return self.UA
        return 0.5 * math.erfc(self.margin / (self.margin_sd * math.sqrt(2)))

    @property
    def reached(self):
        """UA as counted and as expected, the lower of the two, as far as it is wanted."""
        return min(self.UA, self.expected, self.wanted)

    @property
    def forgets(self):
        """Whether the concept is forgotten, on the validation split."""
        return self.wanted - 1e-9 <= self.reached

    def progress(self, rule):
        """What search.next_step is told: 1 where the step goes far enough or too far, else the part of the way to it."""
        return 1.0 if self.forgets or self.kept is False else min(self.reached / self.wanted, 0.99)

    @property
    def retain(self):
        """What a step is chosen by: the mean of IRA and CRA (of the one there is)."""
        known = [x for x in (self.IRA, self.CRA) if not math.isnan(x)]
        return sum(known) / len(known) if known else math.nan


class Judge:
    """Scores the pipeline's present weights for one concept on pictures of one half; see unlearn.Judge."""

    def __init__(self, diffusion, classifiers, asked, kind, name, *, wanted, keep, others, split="validation", seed=0):
        """
        Args:
            diffusion: models.diffusion.Diffusion.
            classifiers: Classifiers or ClipClassifiers.
            asked: [Request]; those of `half` are used.
            others: pictures of other concepts, at most, drawn from all of them by `seed`.
            wanted: UA from which on a step forgets, as counted and as expected.
            keep: part of the present weights' IRA and of their CRA that a candidate has to leave.

        Attributes:
            start: Step of the weights that the judge was made at, everything scored.
            best: the Step that `winner` prefers so far, `start` to begin with.
        """
        self.diffusion, self.classifiers, self.kind, self.name, self.wanted = diffusion, classifiers, kind, name, wanted
        asked = [r for r in asked if r.split == split]
        check_known(asked, classifiers.labels)
        mine = shows(kind, name, asked)
        self.own = [r for r, m in zip(asked, mine, strict=True) if m]
        self.others = [r for r, m in zip(asked, mine, strict=True) if not m]
        order = torch.randperm(len(self.others), generator=torch.Generator().manual_seed(seed))
        self.others = [self.others[i] for i in order[:others].tolist()]
        if not self.own or not self.others:
            raise SlugError(
                f"the prompts' {split} half has none of the {kind} {name}, or of nothing else; make other prompts"
            )
        self.floors, self.missed = {}, collections.Counter()
        self.best = self.start = self.step("", 0.0, None, log_all=True)
        self.floors = {n: keep * getattr(self.start, n) for n in ("IRA", "CRA") if not math.isnan(getattr(self.start, n))}

    def settled(self):
        """Whether the best step forgets and all that was retained still is: the search may end, for what retains more than
        the weights it began at owes that to the draw."""
        return self.best is not self.start and self.best.forgets and self.best.retain >= self.start.retain

    def applied(self, edit):
        """Context within which the pipeline carries an edit."""
        return applied(self.diffusion, edit)

    def pictures(self, asked, desc=None):
        """(uint8 pictures, {kind: (N,) bool correct}, logits) of Requests under the present weights."""
        images = self.diffusion.generate([r.prompt for r in asked], [r.seed for r in asked], desc=desc)
        logits = self.classifiers.logits(images)
        return images, correct(asked, logits, self.classifiers.labels), logits

    def step(self, layer, step, edited, *, best=None, log_all=False, known=None):
        """Score the present weights: Step. The forgotten concept's pictures are made in THIRDS, and UA is of the first ones
        only where these reach less than half of what the best step did. The other concepts' pictures are made only where
        `winner` may prefer the step, and only until it cannot any more."""
        started = time.perf_counter()
        label = [plain_name(n) for n in self.classifiers.labels[self.kind]].index(plain_name(self.name))
        right, margins = [], []
        for part in torch.arange(len(self.own)).chunk(THIRDS):
            _, found, logits = self.pictures([self.own[i] for i in part.tolist()])
            rest = logits[self.kind].clone()
            rest[:, label] = -torch.inf
            right += found[self.kind].tolist()
            margins += (logits[self.kind][:, label] - rest.max(1).values).tolist()
            row = Step(layer, step, 1 - sum(right) / len(right), wanted=self.wanted)
            spread = statistics.stdev(margins) if len(margins) > 1 else 0.0
            row = row._replace(margin=statistics.fmean(margins), margin_sd=spread)
            if self.floors and row.reached < self.best.reached / 2:
                break
        if log_all:
            row = row._replace(**self._retain(-math.inf))
        elif self.best.reached <= row.reached > 0:
            row = row._replace(**self._retain(self.best.retain if self.best.reached == row.reached else -math.inf))
        row = row._replace(seconds=time.perf_counter() - started)
        if self.floors:
            self.best = self.winner([self.best, row])
        return row

    def _retain(self, beat):
        """IRA, CRA and whether they stay above the floors. Without IRA and CRA where one falls below its floor, or their
        mean below `beat`."""
        names = {self.kind: "IRA", OTHER[self.kind]: "CRA"}
        wrong, done = {}, 0
        # What candidates missed most often first: a floor that cannot be kept shows after few pictures.
        others = sorted(self.others, key=lambda r: -self.missed[r])
        while done < len(others):
            part = others[done : done + CHUNK]
            for kind, right in self.pictures(part)[1].items():
                self.missed.update(r for r, hit in zip(part, right.tolist(), strict=True) if not hit)
                wrong[names[kind]] = wrong.get(names[kind], 0) + int((~right).sum())
            done += len(part)
            bound = {n: 1 - w / len(self.others) for n, w in wrong.items()}
            if any(b < self.floors.get(n, 0) for n, b in bound.items()):
                return {"kept": False}
            if sum(bound.values()) / len(bound) < beat:
                return {}
        return bound | {"kept": True}

    @staticmethod
    def winner(candidates):
        """Of the candidates that stay above the floors the one of the highest UA, then the one that retains most: None where
        there is none (Step.reached: UA beyond what is wanted is no merit). Every method is chosen by this rule; all figures
        are of the validation split."""
        allowed = [c for c in candidates if c.kept]
        return max(allowed, key=lambda c: (c.reached, c.retain)) if allowed else None


def resize(size):
    """A transform of PIL pictures: uint8 (3, size, size), the middle where they are not square."""
    steps = (transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size))
    return transforms.Compose([*steps, transforms.PILToTensor()])
