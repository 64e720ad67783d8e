"""Names of methods and layers."""

import pytest

from slug import schema


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        ("visual.transformer.resblocks.9.attn.out_proj.weight", "9.attn.out_proj"),
        ("transformer.resblocks.3.attn.in_proj_weight", "3.attn.in_proj"),
        ("vision_model.encoder.layers.4.self_attn.q_proj.weight", "4.attn.q_proj"),
        ("visual.proj", "proj"),
    ],
)
def test_a_layers_label_is_short(layer, label):
    assert schema.layer_label(layer) == label


def test_variants_of_slug_are_slug():
    assert all(map(schema.is_slug, ("slug", "slug_o", "slug_ws", "slug_w_rounds_lora")))
    assert not any(map(schema.is_slug, ("original", "ga_o", "slugs", "slug_null")))
