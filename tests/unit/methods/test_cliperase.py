"""CLIPErase against its loss in numpy and Adam in plain torch."""

import numpy as np
import pytest
import tiny
import torch
from plain_training import LR, each, weights

from slug.core.edit import kept
from slug.methods import cliperase
from slug.methods._training import Schedule


def soft(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def by_hand(forget, retain, scale, before):
    apart = np.mean([a @ b for a, b in zip(*forget, strict=True)])
    after = scale * retain[0] @ retain[1].T
    n = len(after)
    contrastive = -np.mean([np.log(soft(after, axis)[i, i]) for axis in (0, 1) for i in range(n)])
    kl = [(soft(before, a) * np.log(soft(before, a) / soft(after, a))).sum() / n for a in (0, 1)]
    return 3 * apart + contrastive + 3 * np.mean(kl)


def test_the_loss_is_the_sum_of_three_terms():
    g = torch.Generator().manual_seed(0)
    unit = [torch.nn.functional.normalize(torch.randn(n, 5, generator=g), dim=1) for n in (3, 3, 4, 4)]
    before, scale = 3 * torch.randn(4, 4, generator=g), torch.tensor(7.0)
    found = cliperase.loss((unit[0], unit[1]), (unit[2], unit[3]), scale, before).item()
    numpy = [u.double().numpy() for u in unit]
    assert found == pytest.approx(by_hand(numpy[:2], numpy[2:], 7.0, before.double().numpy()), rel=1e-5)


def test_the_divergence_is_zero_where_nothing_has_changed():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    assert cliperase.divergence(logits, logits).item() == pytest.approx(0, abs=1e-6)
    assert cliperase.divergence(logits, 2 * logits).item() > 0.1


def test_candidates_are_optimiser_steps_that_drive_the_forget_set_apart(rival):
    found = each(rival, "cliperase", Schedule(LR, epochs=4))
    image, text = tiny.features(rival.clip, rival.material.forget)
    before = (image * text).sum(1).mean()
    assert len(found) == 4  # one batch of the forget set in each epoch
    with kept(rival.clip, rival.clip.parameters), torch.no_grad():
        for name, value in found[4].items():
            rival.clip.parameters[name].copy_(value)
        image, text = tiny.features(rival.clip, rival.material.forget)
    assert (image * text).sum(1).mean() < before - 0.01


def test_many_steps_are_spread_over_as_many_candidates_as_it_has(rival, monkeypatch):
    monkeypatch.setattr(cliperase, "COUNT", 3)
    plain = each(rival, "cliperase", Schedule(LR, epochs=3))
    assert len(each(rival, "cliperase", Schedule(LR, epochs=6))) == 3
    monkeypatch.setattr(cliperase, "COUNT", 1)
    last = each(rival, "cliperase", Schedule(LR, epochs=3))
    assert len(last) == 1 and tiny.same_tensors(last[1], plain[3])


def test_the_first_step_is_adams(rival):
    """Adam's first step is the rate times the gradient's sign."""
    clip, (m, base) = rival.clip, (rival.material, weights(rival.clip))
    found = each(rival, "cliperase", Schedule(LR, epochs=1))[1]
    g = torch.Generator().manual_seed(0)
    torch.randperm(6, generator=g)
    rows = torch.randperm(20, generator=g)[:16]

    def features(pairs, chosen):
        tokens = clip.tokenize([pairs.captions[i] for i in chosen])
        return clip.encode_image(pairs.images[chosen]), clip.encode_text(tokens)

    parameter = clip.parameters["visual.proj"].requires_grad_(True)
    retain = features(m.retain, rows.tolist())
    before = (clip.scale() * retain[0] @ retain[1].T).detach()
    cliperase.loss(features(m.forget, list(range(6))), retain, clip.scale(), before).backward()
    want = base["visual.proj"] - LR * parameter.grad.sign()
    parameter.requires_grad_(False).grad = None
    assert ((found["visual.proj"] - want).abs() > 1e-5).float().mean() < 0.02
