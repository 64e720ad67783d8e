"""The step in the null space, against eigenvectors in numpy."""

import numpy as np
import pytest
import torch
from plain_training import each, inputs_of_projection, weights

from slug import methods
from slug.core import preconditioning
from slug.methods import slug_null


def split(moment, share):
    """(kept eigenvectors, projector on the others) of a moment."""
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    first = next(r for r in range(1, len(values) + 1) if values[:r].sum() >= share * values.sum())
    return vectors[:, :first], np.eye(len(values)) - vectors[:, :first] @ vectors[:, :first].T


def test_the_null_space_begins_after_the_fewest_eigenvalues_that_hold_the_share():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    moment = q @ np.diag([6.0, 3.0, 0.9, 0.1]) @ q.T  # cumulative shares 0.6, 0.9, 0.99, 1
    for share, first in ((0.5, 1), (0.61, 2), (0.95, 3), (0.995, 4)):
        wanted = np.eye(4) - q[:, :first] @ q[:, :first].T
        assert np.allclose(slug_null.null_space(torch.tensor(moment), share), wanted, atol=1e-12), share


@pytest.mark.parametrize("encoder", ("vision", "language"))
def test_the_direction_of_a_projection_is_its_gradient_outside_what_retained_inputs_span(rival, encoder):
    name = {"vision": "visual.proj", "language": "text_projection"}[encoder]
    x, g = inputs_of_projection(rival.clip, encoder, rival.material.retain), rival.material.gradient[name].double().numpy()
    kept, p = split(x.T @ x, 0.9)
    found = preconditioning.moments(rival.clip, rival.material.retain)
    along = slug_null.directions(rival.material.gradient, found, 0.9)[name].double().numpy()
    assert np.allclose(along, p @ g, atol=1e-5 * abs(g).max())  # stored as (in, out)
    assert abs(kept.T @ along).max() < 1e-5 * abs(g).max() and abs(along).max() > 1e-3 * abs(g).max()


def test_each_candidate_is_a_relative_step_of_one_layer_along_the_projected_gradient(rival):
    base = weights(rival.clip)
    along = slug_null.directions(
        rival.material.gradient, preconditioning.moments(rival.clip, rival.material.retain), share=0.9
    )
    found = each(rival, "slug_null", 0.9)
    assert len(found) == methods.get("slug_null").count
    layers = [set(changed) for changed in found.values()]
    steps = len(slug_null.STEPS)
    assert all(a == b for n in range(0, len(layers), steps) for a, b in zip(layers[n : n + steps], layers[n:], strict=False))
    assert len(set(map(frozenset, layers))) == len(layers) / steps
    for number, changed in found.items():
        ((name, value),) = changed.items()
        change, size = value - base[name], slug_null.STEPS[(number - 1) % steps]
        assert change.norm().item() == pytest.approx(size * base[name].norm().item(), rel=1e-3)
        assert torch.cosine_similarity(change.flatten(), along[name].flatten(), 0) > 0.999


def test_pairs_that_say_the_name_are_not_retained(rival):
    """A retain set that holds the forget set must give the same moments as one that does not."""
    retain, forget = rival.material.retain, rival.material.forget
    more = retain._replace(images=torch.cat([retain.images, forget.images]), captions=retain.captions + forget.captions)
    plain = each(rival, "slug_null", 0.97)
    rival.material = rival.material._replace(retain=more)
    again = each(rival, "slug_null", 0.97)
    assert all(torch.allclose(again[k][n], w, atol=1e-5) for k, found in plain.items() for n, w in found.items())
