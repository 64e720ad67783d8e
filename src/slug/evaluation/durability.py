"""Does what was forgotten come back? Tests of one edit on the test split, each beside the unedited model.

A test scores the model under an edit and returns rows of figures. Only the linear probe and the arithmetic look at the
validation split: they take from it what an attacker would have, pictures of other source images.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from slug.core import losses
from slug.core.edit import Edit, InPlace, Replacement, kept
from slug.data.pairs import Pairs
from slug.evaluation import likeness, statistics, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Masks, Target
from slug.methods._training import Pass, Schedule, train
from slug.models.clip import Clip
from slug.schema import ARITHMETIC, EDIT, MERGED, NOT_TOLD, PROBE, QUANTISED, RELEARNED, SPELLING, STYLE
from slug.settings import Durability

BATCH, FORGET_PAIRS = 32, 8  # pairs of a relearning step, and at most so many of them of the forgotten name
FORMS = {"fp16": 16, "int8": 8, "4-bit": 4}  # of weights: bits
MERGES = (0.1, 0.2, 0.3, 0.4, 0.5)  # shares of the original weights
REBUILT_OF = 8  # other names that a name is rebuilt from
Row = dict[str, Any]


def round_to_nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric round-to-nearest of a linear weight (out, ...), one scale for each output channel, whose largest magnitude
    becomes 2^(bits - 1) - 1: the values that remain."""
    top, flat = 2 ** (bits - 1) - 1, weight.flatten(1)
    scale = flat.abs().amax(1, keepdim=True) / top
    steps = (flat / scale.clamp_min(torch.finfo(flat.dtype).tiny)).round().clamp(-top, top)
    return (steps * scale).view_as(weight)


def quantised(clip: Clip, form: str) -> Replacement:
    """The present weights with the values that a form of FORMS can hold; products stay in float32. fp16 rounds every
    parameter, int8 and 4-bit the weights of linear layers (and of the patch embedding, which is one) to the nearest: biases,
    norms, embeddings and the scale keep their values, as is usual."""
    values = {n: p.detach().clone() for n, p in clip.parameters.items()}
    if FORMS[form] == 16:
        return Replacement({n: p.half().float() for n, p in values.items()})
    rounded = {n: values[n] for n in clip.candidates() if values[n].ndim > 1}
    # Canonical views have the output channels in front, also those of open_clip's transposed projections.
    for view in clip.canonical_views(rounded).values():
        view.copy_(round_to_nearest(view, FORMS[form]))
    return Replacement(values)


def merged(clip: Clip, edit: Edit, share: float) -> Replacement:
    """The weights between those of an edit and the model's own: `share` of the latter. The model is unedited."""
    own = clip.parameters
    return Replacement({n: torch.lerp(v, own[n].detach(), share) for n, v in edit.values(clip).items()})


def chosen_pairs(forget: Pairs, count: int, seed: int) -> torch.Tensor:
    """Indices of `count` pairs of a forget set, drawn by `seed`; of all where `count` is 0."""
    order = torch.randperm(len(forget.captions), generator=torch.Generator().manual_seed(seed))
    return order[:count] if count else order


def relearn(
    clip: Clip,
    forget: Pairs,
    retain: Pairs,
    *,
    count: int | None,
    steps: int,
    lr: float,
    seed: int = 0,
    free: Collection[str] | None = None,
) -> Iterator[int]:
    """Fine-tune on `count` forget pairs mixed with retain pairs; yields 1, 2, ... after each of `steps` optimiser steps, and
    leaves the model as it was when the generator is exhausted or closed.

    Args:
        count: 0 for all forget pairs, None for none.
        free: the parameters that may move; all where it is None.

    The batch of a step, BATCH pairs, holds at most FORGET_PAIRS of the forget pairs; the contrastive loss would mostly tell
    more of them apart from each other. AdamW at a constant rate over all parameters, with the baselines' weight decay.
    """
    g, passes = torch.Generator().manual_seed(seed), []
    known = torch.empty(0, dtype=torch.long) if count is None else chosen_pairs(forget, count, seed)
    mask = None if free is None else {n: torch.full_like(p, n in free, dtype=torch.bool) for n, p in clip.parameters.items()}
    for _ in range(steps):
        mine = known[torch.randperm(len(known), generator=g)[:FORGET_PAIRS]]
        rest = torch.randperm(len(retain.captions), generator=g)[: BATCH - len(mine)]
        images = torch.cat([forget.images[mine], retain.images[rest]])
        captions = [forget.captions[i] for i in mine] + [retain.captions[i] for i in rest]
        passes.append(Pass(Pairs(images, captions, [], 0), losses.contrastive, +1))
    schedule = Schedule(lr, epochs=1, batch_size=BATCH, seed=seed, decay=False)
    with kept(clip, clip.parameters):
        yield from train(clip, passes, schedule, mask, each_step=True)


def spellings(name: str, aliases: Sequence[str] = ()) -> dict[str, str]:
    """{what it is: text} of other ways to write a name; none is the name itself."""
    found = {
        "lower case": name.lower(),
        "upper case": name.upper(),
        "plural": name + ("es" if name.lower().endswith(("s", "x", "z", "ch", "sh")) else "s"),
        "article": f"the {name}",
        "hyphen": name.replace(" ", "-"),
        "one word": name.replace(" ", ""),
        **{f"synonym {n}": alias for n, alias in enumerate(aliases, 1)},
    }
    return {what: text for what, text in found.items() if text != name}


def style_of(group: str) -> str:
    """The design house of a source image, where its group is `concept/house`; else NOT_TOLD."""
    return group.rpartition("/")[2] if "/" in group else NOT_TOLD


def share(correct: int, total: int) -> Row:
    """A share of pictures with its 95% Clopper-Pearson interval, as columns."""
    low, high = statistics.interval(correct, total)
    return {"value": correct / total, "low": low, "high": high, "correct": correct, "n": total}


class Subject:
    """One forgotten name; every test is a method that returns rows of the model under the edit that it carries."""

    def __init__(
        self,
        evaluation: Evaluation,
        masks: dict[str, Masks],
        target: Target,
        pairs: Pairs,
        retain: Pairs,
        settings: Durability,
        aliases: Sequence[str] = (),
    ) -> None:
        """`masks`: {split: {task: (N,) bool}}; `pairs` and `retain` are the forget and the retain set. --retain-pictures
        also limits the pictures of other names of each split for the probe."""
        self.clip, self.evaluation, self.target = evaluation.clip, evaluation, target
        self.pairs, self.retain, self.settings, self.aliases = pairs, retain, settings, aliases
        seed, limit = settings.run.seed, settings.retain_pictures or None
        self.evaluator = ClipEvaluator(evaluation, target, None, masks["test"], seed=seed, limit=limit)
        self.rows, self.task = self.evaluator.forget_rows, evaluation.tasks[target.task]
        pictures = self.task.pictures
        self.labels, self.blocks = pictures.labels[self.rows], pictures.blocks
        self.groups = [pictures.groups[i] for i in self.rows.tolist()]
        # What an attacker has: pictures of the name, and of the names that compete with it.
        self.known = evaluation.rows(target.task, masks["validation"][target.task], label=target.label)
        rivals, self.others = pictures.blocks[pictures.labels] == pictures.blocks[target.label], {}
        for split, mask in masks.items():
            rows = evaluation.rows(target.task, mask[target.task] & rivals, without=target.label)
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
            self.others[split] = rows[order[:limit]].sort().values

    def test(self, name: str, edit: Edit) -> list[Row]:
        """The rows of a test of schema.TESTS under an edit; an empty one gives those of the unedited model."""
        if name == MERGED:
            return self.merging(edit)
        tests: dict[str, Callable[[], list[Row]]] = {
            EDIT: lambda: [self.scored("as it is")],
            QUANTISED: self.quantisation,
            RELEARNED: lambda: self.relearning(edit),
            PROBE: self.probe,
            SPELLING: self.spelling,
            STYLE: self.style,
            ARITHMETIC: self.arithmetic,
        }
        with self.evaluation.carrying(edit):
            return tests[name]()

    def sides(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As Evaluation.sides for the name's own task, as tensors of their own."""
        features, weights = self.evaluation.sides(self.target.task, rows)
        return features.clone(), weights.clone()

    def named(self, rank: torch.Tensor) -> Row:
        """The row of a zero-shot test by the ranks of the forgotten pictures, with the source images never seen apart."""
        right, seen = rank < 1, self.task.pictures.seen[self.rows]
        row = share(int(right.sum()), len(right)) | {"chance": 0.0, "n_drawings": len(set(self.groups))}
        return row | {"unseen": float(right[~seen].float().mean()), "n_unseen": int((~seen).sum())}

    def scored(self, setting: str) -> Row:
        """The row of the forgotten name and of what is retained."""
        row = self.named(self.evaluation.ranks(self.target.task, self.rows))
        retained, rows = self.evaluator.retained(), self.evaluator.retain_rows
        row |= {f"{t}_acc1": retained[f"{t}_acc1"] for t in rows}
        return {"setting": setting, **row, **{f"n_{t}": len(found) for t, found in rows.items()}}

    def quantisation(self) -> list[Row]:
        """Coarser weights: rounding may remove a step that is small beside it."""
        found = []
        for form in FORMS:
            with self.evaluation.carrying(quantised(self.clip, form)):
                found.append(self.scored(form))
        return found

    def merging(self, edit: Edit) -> list[Row]:
        """Averaging with the original weights, as those do who merge models: a row for each share of the original."""
        found = []
        for share_of_original in MERGES:
            with self.evaluation.carrying(merged(self.clip, edit, share_of_original)):
                found.append(self.scored(f"{share_of_original:.0%} original"))
        return found

    def relearning(self, edit: Edit) -> list[Row]:
        """Fine-tuning, on retain pairs alone, on some forget pictures besides, and on all of them where only what the edit
        moved is free (if that is not all): a row for each of these and of the numbers of steps, 0 among them."""
        start, found, points = self.scored(""), [], set(self.settings.relearn_steps)
        how: dict[str, Any] = {"steps": max(points), "lr": self.settings.relearn_lr, "seed": self.settings.run.seed}
        ways: list[tuple[str, int | None, Collection[str] | None]] = [("no pictures", None, None)]
        for count in dict.fromkeys(self.settings.relearn_pictures):
            ways.append((f"{self._taken(count)} pictures" if count else "all pictures", count, None))
        if 0 < len(edit.changes) < len(self.clip.parameters):
            ways.append(("all pictures by the edited weights alone", 0, set(edit.changes)))
        for label, pictures, free in ways:
            taken = self._taken(pictures)
            found.append(start | {"setting": f"{label}, 0 steps", "pictures": taken, "steps": 0})
            for step in relearn(self.clip, self.pairs, self.retain, count=pictures, free=free, **how):
                if step in points:
                    with self.evaluation.carrying(InPlace.of(self.clip, "", step)):
                        row = self.scored(f"{label}, {step} steps")
                    found.append(row | {"pictures": taken, "steps": step})
        return found

    def _taken(self, count: int | None) -> int:
        """How many forget pictures relearning with `count` has."""
        return 0 if count is None else len(chosen_pairs(self.pairs, count, self.settings.run.seed))

    def probe(self) -> list[Row]:
        """Balanced accuracy of logistic regression on picture features, this name against the others of its block: trained
        on the validation split, tested on the test split. The interval is that of the forgotten pictures (Clopper-Pearson),
        with the share of the others taken as known: there are many times more of them."""
        known, others = self.known, self.others["validation"]
        parts = (known, others, self.rows, self.others["test"])
        said, wrong = likeness.told_apart(*(self.sides(rows)[0] for rows in parts))
        hits, spared = share(int(said.sum()), len(self.rows)), 1 - float(wrong.double().mean())
        row = hits | {k: (hits[k] + spared) / 2 for k in ("value", "low", "high")}
        row |= {"chance": 0.5, "n_drawings": len(set(self.groups)), "n_others": len(self.others["test"])}
        return [{"setting": "balanced accuracy", **row, "n_train": len(known), "n_train_others": len(others)}]

    def spelling(self) -> list[Row]:
        """Zero-shot accuracy where another text stands for the name among the classes."""
        found, texts = [], spellings(self.target.name, self.aliases)
        features, weights = self.sides(self.rows)
        made = zeroshot.classifier(self.clip, list(texts.values()), self.task.templates)
        for (what, text), direction in zip(texts.items(), made, strict=True):
            weights[self.target.label] = direction
            rank = zeroshot.ranks(features, weights, self.labels, self.blocks)
            found.append({"setting": f"{what}: {text}", **self.named(rank)})
        return found

    def style(self) -> list[Row]:
        """Zero-shot accuracy by design house."""
        right = self.evaluation.ranks(self.target.task, self.rows) < 1
        styles, found = [style_of(g) for g in self.groups], []
        for style in sorted(set(styles)):
            mine = right[torch.tensor([s == style for s in styles])]
            found.append({"setting": style, **share(int(mine.sum()), len(mine)), "chance": 0.0, "n_drawings": 1})
        return found

    def arithmetic(self) -> list[Row]:
        """Whether sums of features still single the name out, zero-shot among its block. shifted: a picture less the mean
        picture of other names, plus the mean name, which would undo an edit that only moves the pictures against the names.
        rebuilt: the name's direction from REBUILT_OF other names, its own text unused; the coefficients come from orthogonal
        matching pursuit on the unedited model's names and are applied to the present ones."""
        from sklearn.linear_model import OrthogonalMatchingPursuit

        rivals = self.blocks == self.blocks[self.target.label]
        features, weights = self.sides(torch.cat([self.rows, self.others["validation"]]))
        mine, rest = features[: len(self.rows)], features[len(self.rows) :]
        middle = weights[rivals.to(weights.device)].mean(0)
        shifted = zeroshot.ranks(mine - rest.mean(0) + middle, weights, self.labels, self.blocks)

        others = torch.nonzero(rivals & (torch.arange(len(rivals)) != self.target.label)).flatten()
        names = self.task.weights.cpu()
        count = min(REBUILT_OF, len(others), names.shape[1])
        model = OrthogonalMatchingPursuit(n_nonzero_coefs=count, fit_intercept=False)
        model.fit(names[others].T.numpy(), names[self.target.label].numpy())
        made = torch.as_tensor(model.coef_, dtype=weights.dtype, device=weights.device) @ weights[others.to(weights.device)]
        weights[self.target.label] = torch.nn.functional.normalize(made, dim=0)
        rebuilt = zeroshot.ranks(mine, weights, self.labels, self.blocks)
        return [{"setting": "shifted", **self.named(shifted)}, {"setting": "rebuilt", **self.named(rebuilt)}]
