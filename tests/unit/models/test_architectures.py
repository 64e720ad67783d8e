"""Reuse changes nothing in untrained models at the true size of the architectures."""

import pytest
from clip_world import Both
from reuse import check_every_stage, check_steps_in_one_pass

from slug import models
from slug.evaluation import reference


@pytest.mark.parametrize(("model", "stages"), [("ViT-B-32", {"vision": 14, "language": 14}), ("RN50", {"vision": 6})])
def test_true_architectures_resume_too(model, stages):
    found = check_every_stage(models.load(model, "random"))
    assert {e: max(found[e]) + 1 for e in stages} == stages


@pytest.mark.parametrize("model", ["ViT-B-32", "RN50"])
def test_many_steps_go_through_in_one_pass_at_true_size(model):
    check_steps_in_one_pass(models.load(model, "random"), layers_per_tower=3)


@pytest.mark.parametrize(
    ("model", "some"),
    [
        ("ViT-B-32", ("visual.transformer.resblocks.9.attn.out_proj.weight", "text_projection")),
        ("RN50", ("visual.layer4.0.conv1.weight", "transformer.resblocks.11.mlp.c_fc.weight")),
    ],
)
def test_fast_and_plain_walk_ten_steps_alike_at_true_size(model, some, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "WORKERS", 0)  # processes take longer to start than a few pictures to decode
    both = Both(models.load(model, "random"), tmp_path, classes=5, each=1)
    for layer in some:
        both.walk(layer, 10)
