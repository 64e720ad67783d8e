"""Kodge et al. against the formula in numpy."""

import numpy as np
import pytest
import torch
from plain_training import each, inputs_of_projection, weights

from slug import methods
from slug.core.edit import kept
from slug.methods import kodge


def changed(w, own, other, a_f):
    """W' for W (out, in) and inputs (N, in)."""

    def scaled(x, a):
        _, s, vt = np.linalg.svd(x, full_matrices=False)
        share = s**2 / (s**2).sum()
        return vt.T @ np.diag(a * share / ((a - 1) * share + 1)) @ vt

    m_f, m_r = scaled(own, a_f), scaled(other, 100.0)
    return w @ (np.eye(w.shape[1]) - m_f + m_f @ m_r).T


@pytest.mark.parametrize("axis", (0, 1))
def test_a_matrix_changes_by_the_formula_however_it_is_stored(axis):
    rng = np.random.default_rng(0)
    w, own, other = rng.normal(size=(3, 5)), rng.normal(size=(40, 5)), rng.normal(size=(30, 5)) * [3, 1, 1, 1, 0.1]
    stored = torch.tensor(w if axis else w.T)
    found = kodge.changed(stored, torch.tensor(own.T @ own), torch.tensor(other.T @ other), axis, 10.0).numpy()
    assert np.allclose(found if axis else found.T, changed(w, own, other, 10.0))


def test_what_only_the_forget_set_uses_goes_and_what_the_retain_set_uses_remains():
    own, other = torch.diag(torch.tensor([1.0, 1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0, 1.0]))
    found = kodge.changed(torch.eye(3), own.double(), other.double(), 1, 1e6)
    assert torch.allclose(found.diag(), torch.tensor([0.0, 1.0, 1.0]), atol=0.02)


@pytest.mark.parametrize("encoder", ("vision", "language"))
def test_the_projection_is_changed_last_by_the_inputs_that_the_changed_layers_give(rival, encoder):
    clip, name = rival.clip, {"vision": "visual.proj", "language": "text_projection"}[encoder]
    before = weights(clip)
    sets = rival.material.forget, rival.material.retain
    untouched = [inputs_of_projection(clip, encoder, pairs) for pairs in sets]
    with kept(clip, clip.parameters):
        kodge.sweep(clip, encoder, sets, 3.0, 0)
        after = weights(clip)
        own, other = (inputs_of_projection(clip, encoder, pairs) for pairs in sets)
    wanted = changed(before[name].double().numpy().T, own, other, 3.0).T
    assert np.allclose(after[name], wanted, atol=1e-4)
    assert not np.allclose(after[name], changed(before[name].double().numpy().T, *untouched, 3.0).T, atol=1e-4)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    matrices = {n for n, p in before.items() if p.ndim > 1 and clip.tower(n) == encoder and "embedding" not in n}
    assert moved == matrices


def test_candidates_are_both_towers_and_each_by_itself_from_three_beginnings(rival):
    found = each(rival, "kodge", 3.0)
    assert len(found) == methods.get("kodge").count == 9
    towers = [{rival.clip.tower(n) for n in changed} for changed in found.values()]
    assert towers == [{"vision"}, {"language"}, {"vision", "language"}] * 3
    assert len(found[1]) > len(found[7]) > 1 and found[1].keys() | found[2].keys() == found[3].keys()
