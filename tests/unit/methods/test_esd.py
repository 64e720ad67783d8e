"""ESD: what it trains on, and towards what."""

import math

import pytest
import tiny
import torch
import torch.nn.functional as F

from slug.errors import SlugError
from slug.methods import PipelineMaterial, esd

OWN = ["a bell", "a bell in Noto"]


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


def train(pipeline, monkeypatch, *, rate, every, count=1):
    """The candidates of a rate."""
    monkeypatch.setattr(esd, "EVERY", every)
    monkeypatch.setattr(esd, "COUNT", count)
    return list(esd.candidates(pipeline, PipelineMaterial(OWN, [], [], [0, 1], 0), rate))


def test_noise_is_that_of_the_timestep(pipeline, monkeypatch):
    """By the closed form of the noise levels; a sampler's own add_noise would give those of 999 - t."""
    levels, seen = pipeline.pipe.scheduler.alphas_cumprod, []
    hook = pipeline.pipe.unet.register_forward_pre_hook(
        lambda module, given: seen.append(given[:2]) if len(given) > 2 else None
    )
    train(pipeline, monkeypatch, rate=1e-4, every=6)
    hook.remove()
    clean, rows = pipeline.latents(OWN, [0, 1]).float(), 0
    for x, t in seen:
        for one, time in zip(x, t, strict=True) if t.ndim else ():
            left = (one - levels[time].sqrt() * clean).flatten(1).norm(dim=1).min() / (1 - levels[time]).sqrt()
            assert left == pytest.approx(math.sqrt(one.numel()), rel=0.25), int(time)
            rows += 1
    assert rows >= 6 * esd.BATCH


def test_predictions_move_towards_the_target(pipeline, monkeypatch):
    (edit,) = train(pipeline, monkeypatch, rate=1e-2, every=30)
    g = torch.Generator().manual_seed(5)
    x, t, unet = torch.randn(4, 4, 8, 8, generator=g), torch.full((4,), 500), pipeline.pipe.unet
    text, empty = (pipeline.embed([p] * 4) for p in (OWN[0], ""))
    with torch.no_grad():
        nothing, concept = unet(x, t, empty).sample, unet(x, t, text).sample
        target = nothing - esd.STRENGTH * (concept - nothing)
        with edit.applied(pipeline):
            assert F.mse_loss(unet(x, t, text).sample, target) < F.mse_loss(concept, target)


def test_candidates_are_of_the_cross_attention_and_say_rate_and_steps(pipeline, monkeypatch):
    found = train(pipeline, monkeypatch, rate=1e-4, every=2, count=3)
    assert [(e.layer, e.step) for e in found] == [("lr 0.0001", 2), ("lr 0.0001", 4), ("lr 0.0001", 6)]
    assert all(set(e.changes) == set(esd.trained(pipeline)) for e in found)


def test_a_later_candidate_goes_on_from_the_one_before(pipeline, monkeypatch):
    *_, last = train(pipeline, monkeypatch, rate=1e-4, every=2, count=3)
    (whole,) = train(pipeline, monkeypatch, rate=1e-4, every=6)
    assert tiny.same_tensors(dict(last.changes), dict(whole.changes))


def test_the_pipeline_keeps_its_weights(pipeline, monkeypatch):
    before = {n: p.detach().clone() for n, p in pipeline.tensors.items()}
    train(pipeline, monkeypatch, rate=1e-2, every=2)
    assert tiny.same_tensors(before, {n: p.detach() for n, p in pipeline.tensors.items()})


def test_a_loss_that_is_no_number_is_said_and_leaves_the_weights_alone(pipeline, monkeypatch):
    before = {n: p.detach().clone() for n, p in pipeline.tensors.items()}
    with pytest.raises(SlugError, match="the loss of ESD is"):
        train(pipeline, monkeypatch, rate=1e30, every=5)
    assert tiny.same_tensors(before, {n: p.detach() for n, p in pipeline.tensors.items()})
