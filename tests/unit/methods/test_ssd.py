"""SSD."""

import pytest
import torch
from plain_training import weights

from slug import methods
from slug.core.edit import kept
from slug.methods import ssd


@pytest.fixture
def material(small):
    """The small model's material with random importances; the first tensor matters to the forget set alone."""
    g = torch.Generator().manual_seed(0)
    forget = {n: torch.rand(p.shape, generator=g) for n, p in small.clip.parameters.items()}
    retain = {n: torch.rand(p.shape, generator=g) * 0.2 for n, p in small.clip.parameters.items()}
    retain[next(iter(retain))].zero_()
    return small.material._replace(forget_importance=forget, retain_importance=retain)


def test_every_candidate_dampens_the_original_weights_by_the_formula(small, material):
    """The published code dampens what it has dampened already."""
    clip, before = small.clip, weights(small.clip)
    with kept(clip, clip.parameters):
        for number in ssd.candidates(clip, material, 10.0):
            strength = 0.1 + (number - 1) * (5 - 0.1) / 9
            for name in ("visual.proj", "text_projection", "ln_final.bias"):
                flat = before[name].flatten().tolist()
                f, r = (part[name].flatten().tolist() for part in (material.forget_importance, material.retain_importance))
                want = [w * min(strength * b / a, 1) if a > 10 * b else w for w, a, b in zip(flat, f, r, strict=True)]
                assert clip.parameters[name].flatten().tolist() == pytest.approx(want, rel=1e-5, abs=1e-7)


def test_there_are_as_many_candidates_as_the_registry_says(small, material):
    with kept(small.clip, small.clip.parameters):
        numbers = list(ssd.candidates(small.clip, material, 10.0))
    assert numbers == list(range(1, methods.get("ssd").count + 1))


def test_weights_that_do_not_matter_to_the_forget_set_are_not_divided_by_zero():
    none = torch.zeros(3)
    assert torch.equal(ssd.dampen(torch.ones(3), none, none, 1.0), torch.ones(3))
