"""Reuse changes nothing in untrained models at the true size of the architectures."""

import pytest
from reuse import check_every_stage, check_steps_in_one_pass

from slug import models


@pytest.mark.parametrize(("model", "stages"), [("ViT-B-32", {"vision": 14, "language": 14}), ("RN50", {"vision": 6})])
def test_true_architectures_resume_too(model, stages):
    found = check_every_stage(models.load(model, "random"))
    assert {e: max(found[e]) + 1 for e in stages} == stages


@pytest.mark.parametrize("model", ["ViT-B-32", "RN50"])
def test_many_steps_go_through_in_one_pass_at_true_size(model):
    check_steps_in_one_pass(models.load(model, "random"), layers_per_tower=3)
