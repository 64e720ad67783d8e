"""The validation and the test split of an evaluation."""

import numpy as np
import torch


def validation_mask(pictures, seed):
    """Split an evaluation into a select and a test split, by group: (N,) bool, True in the validation split.

    Within every class, and within the seen and the unseen groups apart, half of the groups (one of three) go to the
    validation split; a class's only group falls by chance. Without this, a step would be reported on the very pictures it
    was selected on (trap 9).
    """
    rng = np.random.default_rng([seed, len(pictures.groups)])
    by_class = {}
    for i, (label, seen, group) in enumerate(
        zip(pictures.labels.tolist(), pictures.seen.tolist(), pictures.groups, strict=True)
    ):
        by_class.setdefault((label, seen), {}).setdefault(group, []).append(i)
    select = torch.zeros(len(pictures.groups), dtype=torch.bool)
    for groups in by_class.values():
        order = [list(groups)[i] for i in rng.permutation(len(groups))]
        count = len(order) // 2 + (len(order) == 1 and rng.random() < 0.5)
        for group in order[:count]:
            select[groups[group]] = True
    return select
