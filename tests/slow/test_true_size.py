"""The fast evaluation and the plain one agree in untrained models at the true size of the architectures."""

import pytest
from clip_world import Both

from slug import models
from slug.evaluation import reference


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "some"),
    [
        ("ViT-B-32", ("visual.transformer.resblocks.9.attn.out_proj.weight", "text_projection")),
        ("RN50", ("visual.layer4.0.conv1.weight", "transformer.resblocks.11.mlp.c_fc.weight")),
    ],
)
def test_fast_and_plain_walk_ten_steps_alike(model, some, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "WORKERS", 0)  # processes take longer to start than a few pictures to decode
    both = Both(models.load(model, "random"), tmp_path, classes=5, each=1)
    for layer in some:
        both.walk(layer, 10)
