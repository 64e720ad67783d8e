"""The validation split and the test split of an evaluation."""

import numpy as np
import torch

from slug.data.evaluation_sets import PictureSet


def validation_mask(pictures: PictureSet, seed: int) -> torch.Tensor:
    """Split an evaluation by source image: (N,) bool, True in the validation split, False in the test split.

    Steps are chosen on the validation split and reported on the test split, so all pictures of one source image lie on the
    same side. Within each class, half of the source images seen in training and half of the unseen ones go to the
    validation split, rounded down; a class's only source image falls to either side by chance.
    """
    rng = np.random.default_rng([seed, len(pictures.groups)])
    by_class: dict[tuple[int, bool], dict[str, list[int]]] = {}
    rows = zip(pictures.labels.tolist(), pictures.seen.tolist(), pictures.groups, strict=True)
    for i, (label, seen, group) in enumerate(rows):
        by_class.setdefault((label, seen), {}).setdefault(group, []).append(i)
    validation = torch.zeros(len(pictures.groups), dtype=torch.bool)
    for groups in by_class.values():
        order = [list(groups)[i] for i in rng.permutation(len(groups))]
        count = len(order) // 2 + (len(order) == 1 and rng.random() < 0.5)
        for group in order[:count]:
            validation[groups[group]] = True
    return validation
