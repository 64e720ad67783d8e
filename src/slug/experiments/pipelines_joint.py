"""Edits of several concepts made to fit each other by one joint system for each matrix that they move.

Let T_i be the edit of a concept i on a matrix W, found alone, F_i the mean of x x^T over the inputs of W on the prompts of
i, and C the same on what is retained: pairs that name no concept, and, k times, the prompts of all others. Of all changes D
of W the one that does to the inputs of every concept what its own edit does, moves retained inputs as little as possible,
and is small itself has the least E_C |D x|^2 + w sum_i E_i |(D - T_i) x|^2 + c |D|^2, so
D = sum_i w T_i F_i (C + w sum_j F_j + c I)^-1. Its summands are the parts of the concepts: without one of them D forgets the
others. Matrices are solved for from shallow to deep, each with the inputs that the parts found so far leave.

The prompts are those of the validation split, which the closed forms of slug.methods read as well.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slug.artifacts.gradient_files import GradientFiles
from slug.artifacts.records import Record
from slug.core import layers, preconditioning
from slug.core.edit import Edit, total
from slug.data.pairs import Pairs, read_tar, saying, some
from slug.errors import SlugError
from slug.evaluation.canvas_prompts import Concept
from slug.experiments.pipeline_setup import Canvas
from slug.methods import get
from slug.settings import Sources

RETAINED = 1000  # pairs that the moment of retained inputs is of, drawn by the seed
PROMPTS = 30.0  # k
Parts = dict[Concept, Edit]


def gradient_files(canvas: Canvas, records: Mapping[Concept, Record]) -> GradientFiles:
    """The gradients and the sets that records were found with. SlugError where a set is another one by now."""
    first = next(iter(records.values()))["settings"]
    names = tuple(c.name for c in records)
    sources = Sources(celeb_name=names, tar_dir=first["tar_dir"], train_data=first["train_data"])
    how: dict[str, Any] = {"encoder": canvas.pipeline.encoder, "protocol": canvas.run.rules}
    found = GradientFiles(canvas.pipeline.clip, sources, canvas.run.result_dir, first["batch_size"], **how)
    for concept, record in records.items():
        now = found.hashes(concept.name, get(record["method"]).variant)
        if any(record.get(k) != v for k, v in now.items()):
            raise SlugError(f"the forget set or the retain set of {concept.name} has changed; run b2_unlearn_sd.py again")
    return found


class JointSystem:
    """The sets whose inputs a joint system reads.

    Attributes:
        sets: the retained pairs, the prompts of no concept, and the prompts of each concept.
    """

    def __init__(self, canvas: Canvas, found: GradientFiles, group: Sequence[Concept]) -> None:
        self.clip, self.group = canvas.pipeline.clip, list(group)
        every = _texts(found.retain_tar)
        rest = saying(every, [c.plain.name for c in group], says=False)
        if not rest:
            raise SlugError("every retained pair names one of the concepts; give fewer of them")
        order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(canvas.run.seed))[:RETAINED]
        asked = canvas.split("validation")
        shown = [c.shown_by(asked) for c in group]
        others = [r.prompt for r, *mine in zip(asked, *shown, strict=True) if not any(mine)]
        own = [[r.prompt for r, mine in zip(asked, of, strict=True) if mine] for of in shown]
        self.sets = [some(every, [rest[i] for i in order.tolist()]), *map(_prompts, [others, *own])]
        self.how: dict[str, Any] = {"batch_size": found.batch_size, "encoder": found.encoder, "padded": True}

    def moments(self, names: Sequence[str]) -> dict[str, tuple[list[torch.Tensor], int]]:
        """{matrix: (mean x x^T on each of `sets`; axis that meets x)} at the present weights, of those of `names` that read
        inputs."""
        found = [preconditioning.moments(self.clip, s, desc="layer inputs", **self.how) for s in self.sets]
        tokens = [self.clip.tokenize(s.captions).numel() for s in self.sets]  # padded to the longest of each set
        return {
            n: ([f[n][0] / count for f, count in zip(found, tokens, strict=True)], found[0][n][1])
            for n in names
            if n in found[0]
        }

    def parts(self, edits: Mapping[Concept, Edit], weight: float) -> Parts:
        """The part of each concept of the group.

        Args:
            edits: T_i.
            weight: w.
        """
        made: dict[Concept, dict[str, torch.Tensor]] = {c: {} for c in edits}
        touched = sorted({n for e in edits.values() for n in e.changes}, key=lambda n: layers.depth_order(self.clip, n))
        for _, names in itertools.groupby(touched, key=self.clip.stage):
            here = list(names)
            with total(Edit(m) for m in made.values()).applied(self.clip):
                moments = self.moments(here)
            for name in here:
                for concept, edit in edits.items():
                    if name in edit.changes:
                        change = edit.changes[name]
                        place = self.group.index(concept)
                        fitted = _part(change, place, *moments[name], weight) if name in moments else change
                        made[concept][name] = fitted
        return {c: Edit(changes, edits[c].layer, edits[c].step) for c, changes in made.items()}


def _prompts(texts: Sequence[str]) -> Pairs:
    """Prompts, each once, as pairs without pictures."""
    texts = list(dict.fromkeys(texts))
    return Pairs(torch.empty(len(texts), 0), texts, texts, 0)


def _texts(tar: Path) -> Pairs:
    """The captions of a tar, without its pictures, which a text tower does not read."""
    samples = read_tar(tar)
    return Pairs(torch.empty(len(samples), 0), [s[2] for s in samples], [s[0] for s in samples], 0)


def _part(change: torch.Tensor, place: int, moments: Sequence[torch.Tensor], axis: int, weight: float) -> torch.Tensor:
    """w T F (C + w sum F + c I)^-1 for one concept's change T of a matrix whose `axis` meets the inputs."""
    retained, own = moments[0] + PROMPTS * moments[1], moments[2:]
    ridge = preconditioning.DAMPING * retained.diagonal().mean() * torch.eye(len(retained), dtype=retained.dtype)
    system = retained + ridge.to(retained.device) + weight * sum(own)
    matrix = change.double().to(retained.device).movedim(axis, 1)
    solved = torch.linalg.solve(system, (weight * matrix @ own[place]).T).T  # the system is symmetric
    return solved.movedim(1, axis).float().contiguous().to(change.device)
