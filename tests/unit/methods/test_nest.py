"""NeST's weights of rows by hand."""

import pytest
import torch
from plain_training import each, weights

from slug import methods
from slug.methods import nest

FORGET = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
# Norms 5, 5, 2 and 0, mean 3; cosines 0.6, -1, 1 and none.
RETAIN = torch.tensor([[3.0, 4.0], [0.0, -5.0], [2.0, 0.0], [0.0, 0.0]])
WEIGHTS = [0.4 / (5 / 3), 1 / (5 / 3), 0.1, 10.0]


def test_the_weights_of_rows_by_hand():
    assert nest.row_weights(FORGET, RETAIN).tolist() == pytest.approx(WEIGHTS, rel=1e-4)


def test_rows_are_outputs_however_the_matrix_is_stored():
    wanted = FORGET * torch.tensor(WEIGHTS)[:, None]
    assert torch.allclose(nest.direction(FORGET, RETAIN, 0), wanted, rtol=1e-4)
    assert torch.allclose(nest.direction(FORGET.T, RETAIN.T, 1), wanted.T, rtol=1e-4)
    kernel = nest.direction(FORGET.view(4, 1, 1, 2), RETAIN.view(4, 1, 1, 2), 0)
    assert torch.allclose(kernel, wanted.view(4, 1, 1, 2), rtol=1e-4)


def test_each_candidate_is_one_step_of_one_layer(rival):
    base, (f, r) = weights(rival.clip), (rival.material.gradient, rival.material.retain_gradient)
    found = each(rival, "nest", 0.08)
    assert len(found) == methods.get("nest").count and len({frozenset(c) for c in found.values()}) == len(found)
    for changed in found.values():
        ((name, value),) = changed.items()
        change = value - base[name]
        assert change.norm().item() == pytest.approx(0.08 * base[name].norm().item(), rel=1e-3)
        along = nest.direction(f[name], r[name], int(name in ("visual.proj", "text_projection")))
        assert torch.cosine_similarity(change.flatten(), along.flatten(), 0) > 0.999
