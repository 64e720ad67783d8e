"""Canonical names: views of a model's tensors under the names and layouts of a Hugging Face CLIP."""

import pytest
import tiny
import torch

from slug.models import canonical


def test_a_fused_projection_is_q_k_and_v():
    tensor = torch.randn(12, 4)
    found = canonical.hf_views("visual.transformer.resblocks.3.attn.in_proj_weight", tensor)
    assert list(found) == [f"vision_model.encoder.layers.3.self_attn.{p}_proj.weight" for p in "qkv"]
    assert torch.equal(torch.cat(list(found.values())), tensor)


def test_projections_are_transposed():
    tensor = torch.randn(3, 5)
    assert torch.equal(canonical.hf_views("text_projection", tensor)["text_projection.weight"], tensor.T)
    assert torch.equal(canonical.hf_views("visual.proj", tensor)["visual_projection.weight"], tensor.T)


def test_writing_into_a_view_writes_into_the_tensor():
    fused, projection = torch.zeros(6), torch.zeros(2, 3)
    canonical.hf_views("transformer.resblocks.0.attn.in_proj_bias", fused)[
        "text_model.encoder.layers.0.self_attn.k_proj.bias"
    ] += 1
    canonical.hf_views("visual.proj", projection)["visual_projection.weight"][2, 0] = 5
    assert fused.tolist() == [0, 0, 1, 1, 0, 0] and projection[0, 2] == 5


def test_both_families_have_the_same_names_and_shapes(tiny_clip):
    ours, theirs = (tiny.load(tiny_clip, family) for family in tiny.FAMILIES)
    found = {n: t.shape for n, t in ours.canonical_views(ours.parameters).items()}
    assert found == {n: t.shape for n, t in theirs.parameters.items()}


@pytest.mark.parametrize(
    "name",
    ["visual.layer1.0.conv1.weight", "transformer.resblocks.0.ls_1.gamma", "transformer.resblocks.0.attn.ln_q.weight"],
)
def test_other_tensors_have_no_canonical_name(name):
    with pytest.raises(KeyError):
        canonical.hf_views(name, torch.zeros(3))


@pytest.mark.parametrize(
    ("family", "name", "wanted"),
    [
        ("hf", "text_projection.weight", "text_projection.weight"),
        ("diffusers", "encoder.layers.0.mlp.fc1.weight", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("diffusers", "text_model.final_layer_norm.bias", "text_model.final_layer_norm.bias"),
        ("llava", "model.vision_tower.vision_model.post_layernorm.bias", "vision_model.post_layernorm.bias"),
        ("llava", "vision_tower.post_layernorm.bias", "vision_model.post_layernorm.bias"),
    ],
)
def test_names_of_other_families(family, name, wanted):
    tensor = torch.zeros(3)
    assert canonical.views(family, name, tensor) == {wanted: tensor}


def test_only_the_vision_tower_of_a_llava_has_canonical_names():
    with pytest.raises(KeyError):
        canonical.views("llava", "model.language_model.embed_tokens.weight", torch.zeros(3))
