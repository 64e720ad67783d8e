"""RAZOR, in one round and in six."""

import pytest
import torch
from plain_training import each, weights

from slug import methods
from slug.core.layers import Layer
from slug.methods import razor


def by_hand(clip, f, r):
    """{layer: score}."""
    found = {}
    for n in clip.candidates():
        theta, g, h = (x.detach().double().flatten() for x in (clip.parameters[n], f[n], r[n]))
        found[n] = (g.norm() / theta.norm() * (1 - g @ h / (g.norm() * h.norm()).clamp_min(1e-300))).item()
    return found


def test_the_score_by_hand():
    assert razor.score(Layer("a", "vision", 0.5, -0.2)) == pytest.approx(0.6)
    assert razor.score(Layer("a", "vision", 0.5, 1.0)) == 0


def test_one_round_steps_on_the_layer_of_the_best_score(rival):
    clip, (f, r) = rival.clip, (rival.material.gradient, rival.material.retain_gradient)
    scores, base = by_hand(clip, f, r), weights(rival.clip)
    best = max(scores, key=scores.__getitem__)
    found = each(rival, "razor", 3.2)
    assert len(found) == methods.get("razor").count
    for number, changed in found.items():
        assert set(changed) == set(clip.group(best))
        change = changed[best] - base[best]
        assert change.norm().item() == pytest.approx(razor.STEPS[number - 1] * base[best].norm().item(), rel=1e-3)
        along = 3.2 * f[best] - r[best]
        assert torch.cosine_similarity(change.flatten(), along.flatten(), 0) > 0.999


def test_drift_pulls_back_to_the_original_weights():
    f, r, moved = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.0])
    assert razor.direction(f, r, 2.0, moved).tolist() == [1.5, -1.0] and razor.direction(f, r, 2.0).tolist() == [2.0, -1.0]


def test_each_of_six_rounds_adds_a_layer_and_each_step_starts_from_the_original_weights(rival):
    found = each(rival, "razor_rounds", 1.0)
    assert len(found) == methods.get("razor_rounds").count == 6 * len(razor.ROUND_STEPS)
    for start in range(1, len(found), 6):
        counts = [len(found[n]) for n in range(start, start + 6)]
        assert counts == [1, 2, 3, 4, 5, 6]
        assert all(found[n].keys() < found[n + 1].keys() for n in range(start, start + 5))
    scores = by_hand(rival.clip, rival.material.gradient, rival.material.retain_gradient)
    assert found[1].keys() == found[7].keys() == {max(scores, key=scores.__getitem__)}


def test_the_second_round_is_of_gradients_and_drift_at_the_weights_of_the_first(rival, monkeypatch):
    from slug.core import gradients, losses
    from slug.core.edit import kept

    monkeypatch.setattr(razor, "ROUND_STEPS", (0.1,))
    clip, base, found = rival.clip, weights(rival.clip), each(rival, "razor_rounds", 1.0)
    (first,) = found[1]
    with kept(clip, clip.parameters):
        with torch.no_grad():
            clip.parameters[first].copy_(found[1][first])
        f, _ = gradients.compute(clip, rival.material.forget, losses.cosine_embedding)
        r, _ = gradients.compute(clip, rival.material.retain, losses.contrastive)
        scores = {n: s for n, s in by_hand(clip, f, r).items() if n != first}
    assert found[2].keys() == {first, max(scores, key=scores.__getitem__)}
    along = f[first] - r[first] - (found[1][first] - base[first])
    change = found[2][first] - found[1][first]
    assert torch.cosine_similarity(change.flatten(), along.flatten(), 0) > 0.999
