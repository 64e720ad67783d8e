"""Membership inference: whether the pairs' cosines tell the forget set from pictures that were never trained on."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from slug.errors import SlugError
from slug.models.towers import Tower

if TYPE_CHECKING:
    from slug.data.pairs import Pairs
    from slug.evaluation.clip_evaluator import ClipEvaluator
    from slug.evaluation.clip_tasks import Evaluation


RESAMPLES, SPLITS = 10, 10
SEEDS = range(RESAMPLES)  # of the published samples
LEAST = 12  # pairs of both kinds: a tenth of these is two, one of each
Cosines = Sequence[float] | torch.Tensor  # (N,) of matched pairs


def accuracy(members: Cosines, others: Cosines, *, seed: int = 0) -> tuple[float, float]:
    """Accuracy in % of telling members' pair cosines from others' by logistic regression: (mean, deviation). 50 is chance;
    NaN for fewer than two of a kind, and for cosines of a model so broken that they are NaN.

    Each of RESAMPLES cuts the larger set down to the size of the smaller one, and has at most SPLITS stratified splits.
    """
    from sklearn.model_selection import StratifiedKFold

    sets = np.asarray(members, float), np.asarray(others, float)
    size = min(map(len, sets))
    if size < 2 or not all(np.isfinite(part).all() for part in sets):
        return float("nan"), float("nan")
    rng, target, scores = np.random.default_rng(seed), np.repeat([1, 0], size), []
    for _ in range(RESAMPLES):
        x = np.concatenate([rng.choice(part, size, replace=False) for part in sets])
        x = ((x - x.mean()) / (x.std() + 1e-12))[:, None]  # cosines lie close together: bring them to the penalty's scale
        folds = StratifiedKFold(min(SPLITS, size), shuffle=True, random_state=int(rng.integers(2**31)))
        scores += _scores(x, target, folds.split(x, target))
    return 100 * float(np.mean(scores)), 100 * float(np.std(scores))


def _scores(x: np.ndarray, target: np.ndarray, splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Accuracy of a logistic regression on each (train, test) of `splits`, for finite x (N, 1) and target (N,).

    scikit-learn's checks of every argument take longer than such a small fit, and a search makes thousands.
    """
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    with config_context(assume_finite=True, skip_parameter_validation=True):
        return [LogisticRegression().fit(x[a], target[a]).score(x[b], target[b]) for a, b in splits]


# ---------------------------------------------------------------------------------------------------------- as published


def drawn(count: int, size: int) -> list[np.ndarray]:
    """For each of RESAMPLES seeds, which `size` of `count` pairs take part: all in their order where there are no more."""
    return [np.random.RandomState(seed).permutation(count)[:size] if count > size else np.arange(count) for seed in SEEDS]


def published(members: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> tuple[float, float]:
    """As `accuracy`, the published way: raw cosines of samples of equal size, one of each set for each seed of SEEDS, and
    stratified random splits with a tenth for the test. NaN where the sets are too small for both kinds in every test."""
    from sklearn.model_selection import StratifiedShuffleSplit

    scores = []
    for seed, parts in zip(SEEDS, zip(members, others, strict=True), strict=True):
        x, target = np.concatenate(parts).astype(float)[:, None], np.repeat([1, 0], len(parts[0]))
        if len(target) < LEAST:
            return float("nan"), float("nan")
        folds = StratifiedShuffleSplit(SPLITS, test_size=0.1, random_state=seed)
        scores += _scores(x, target, folds.split(x, target))
    return 100 * float(np.mean(scores)), 100 * float(np.std(scores))


class PairCosines:
    """Cosines of pairs with their own captions, under one edit after another; what an edit leaves alone is kept.

    Only the pairs of `rows` (n,) are encoded.
    """

    def __init__(self, evaluation: "Evaluation", pairs: "Pairs", rows: torch.Tensor) -> None:
        tokens = evaluation.clip.tokenize([pairs.captions[i] for i in rows.tolist()])
        self.evaluation, self.inputs = evaluation, {"vision": pairs.images[rows], "language": tokens}
        self.kept: dict[str, torch.Tensor] = {}  # features of the unedited model

    def now(self) -> torch.Tensor:
        """The cosines (n,) under the edit that the model carries."""
        found = {}
        for side, inputs in self.inputs.items():
            moved = side in self.evaluation.moved
            if moved or side not in self.kept:
                found[side] = Tower(self.evaluation.clip, side, inputs, batch_size=self.evaluation.batch_size).features()
            if not moved:
                found[side] = self.kept.setdefault(side, found.get(side, torch.empty(0)))
        return (found["vision"] * found["language"]).sum(1).cpu()


class OwnCaptions:
    """Membership inference as published: pictures of the forget set against pairs of another corpus, each picture with its
    own caption."""

    def __init__(self, evaluation: "Evaluation", members: "Pairs", others: "Pairs") -> None:
        """SlugError where one of the sets is empty."""
        sets = members, others
        size = min(len(s.captions) for s in sets)
        if not size:
            raise SlugError("membership inference needs pairs in the forget set and in --mia-data")
        self.sets = []
        for pairs in sets:
            samples = drawn(len(pairs.captions), size)
            rows, places = np.unique(np.concatenate(samples), return_inverse=True)
            cosines = PairCosines(evaluation, pairs, torch.from_numpy(rows))
            self.sets.append((cosines, np.split(places, len(samples))))

    def now(self) -> dict[str, float]:
        """The columns mia_mean and mia_std, in %, under the edit that the model carries."""
        samples = []
        for cosines, places in self.sets:
            values = cosines.now().numpy()
            samples.append([values[p] for p in places])
        return dict(zip(("mia_mean", "mia_std"), published(*samples), strict=True))


# ----------------------------------------------------------------------------------------------------------------- ours


def of_edit(evaluator: "ClipEvaluator") -> dict[str, float]:
    """Membership inference under the edit that the model carries, each picture against the prompt of its own name: the
    columns mia_mean, mia_std, mia_others_mean and mia_others_std, in %; none where the evaluator has no forget set.

    Members are the forget set's pictures. `mia` tells them from unseen pictures of the same concept; `mia_others`, as
    published, from unseen pictures of other concepts. Where an evaluation set does not say what was seen (CelebA), all
    its pictures count as unseen. An evaluator with `own_captions` has `mia` the published way instead, and no `mia_others`.
    """
    pairs = evaluator.pairs
    if pairs is None:
        return {}
    if evaluator.own_captions is not None:
        return evaluator.own_captions.now()
    evaluation, target, seed = evaluator.evaluation, evaluator.target, evaluator.seed
    pictures, mask = evaluation.tasks[target.task].pictures, evaluator.masks[target.task]
    unseen = ~pictures.seen if (~pictures.seen).any() else torch.ones_like(pictures.seen)
    same = evaluation.rows(target.task, mask & unseen, label=target.label)
    rivals = pictures.blocks == pictures.blocks[target.label]  # other blocks would need their own classifier
    other = evaluation.rows(target.task, mask & unseen, without=target.label)
    other = other[rivals[pictures.labels[other]]]
    chosen = torch.randperm(len(other), generator=torch.Generator().manual_seed(seed))[: len(pairs.captions)]
    rows = torch.cat([same, other[chosen.sort().values]])
    features, weights = evaluation.sides(target.task, rows)
    cosines = (features * weights[pictures.labels[rows]]).sum(1).cpu()
    members = (evaluation.features_of(pairs.images) @ weights[target.label]).cpu()
    mia = accuracy(members, cosines[: len(same)], seed=seed)
    others = accuracy(members, cosines[len(same) :], seed=seed)
    return dict(zip(("mia_mean", "mia_std", "mia_others_mean", "mia_others_std"), (*mia, *others), strict=True))
