"""Edits as LoRA adapters: factored, written, loaded by the libraries, and switched off again."""

import edits
import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import CLIPModel

from slug.artifacts import adapters, cards, deltas
from slug.core.edit import Edit
from slug.errors import SlugError

PROMPTS = ["a bell", "a key"]


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


def test_a_step_is_factored_to_the_rank_its_residual_asks_for():
    g = torch.Generator().manual_seed(0)
    change = torch.randn(20, 3, generator=g) @ torch.randn(3, 12, generator=g) + 0.001 * torch.randn(20, 12, generator=g)
    found = adapters.factor(change, 0.05)
    assert found.rank == 3 and found.down.shape == (3, 12) and found.up.shape == (20, 3)
    rest = (change - found.up @ found.down).norm() / change.norm()
    assert found.residual == pytest.approx(rest.item(), abs=1e-6) and rest <= 0.05


def test_without_a_residual_the_factors_are_the_change():
    change = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    whole = adapters.factor(change, 0.0)
    assert whole.rank == 12 and torch.allclose(whole.up @ whole.down, change, atol=1e-6) and whole.residual == 0


@pytest.mark.parametrize(
    ("edit", "fits"),
    [
        ({"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(3, 3)}, True),
        ({"text_model.embeddings.token_embedding.weight": torch.ones(3, 3)}, False),
        ({"text_projection.weight": torch.ones(3, 3), "text_model.final_layer_norm.weight": torch.ones(3)}, False),
        ({}, False),
    ],
)
def test_only_linear_layers_become_an_adapter(edit, fits):
    assert adapters.fits(edit) == fits
    if fits:
        assert list(adapters.adapter(edit)) == [n.removesuffix(".weight") for n in edit]
    else:
        with pytest.raises(SlugError, match="edits of linear layers only; apply the delta instead"):
            adapters.adapter(edit)


@pytest.mark.parametrize("layers", [("q_proj", "k_proj", "v_proj"), ("fc1", "fc2"), ("fc2",), ("out_proj",)], ids=" ".join)
def test_diffusers_loads_the_adapter_and_switches_it_off_again(pipeline, tmp_path, layers):
    group = [n for n in pipeline.candidates() if ".layers.0." in n and n.split(".")[-2] in layers]
    edit = {n: tiny.strong_edit(pipeline, n)[n] for n in group}
    assert len(edit) == len(layers)
    u, s, v = torch.linalg.svd(edit[group[-1]], full_matrices=False)
    edit[group[-1]] = (u[:, :2] * s[:2]) @ v[:2]  # another rank than the rest
    factors = adapters.adapter(edit, 1e-6)
    assert [f.rank for f in factors.values()][-1] == 2
    header = {"name": "Noto", "layer": group[0], "step": "2.0", "metrics": '{"UA": 0.9, "n_forget": 60}'}
    assert adapters.save(tmp_path, factors, "mini", ("a.delta.safetensors", header)) == tmp_path / adapters.FILE
    assert (tmp_path / adapters.FILE).is_file() and (tmp_path / cards.FILE).is_file()
    original = pipeline.embed(PROMPTS)
    with Edit(edit).applied(pipeline):
        edited = pipeline.embed(PROMPTS)
    pipe, ask = pipeline.pipe, lambda: pipeline.pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    pipe.load_lora_weights(tmp_path)
    try:
        assert torch.allclose(ask(), edited, atol=1e-5) and not torch.allclose(edited, original, atol=1e-3)
        pipe.disable_lora()
        assert torch.equal(ask(), original)
        pipe.enable_lora()
        assert torch.allclose(ask(), edited, atol=1e-5)
    finally:
        pipe.unload_lora_weights()
    assert torch.equal(ask(), original)
    with pipeline.with_lora(tmp_path):
        assert torch.allclose(pipeline.embed(PROMPTS), edited, atol=1e-5)
    assert torch.equal(pipeline.embed(PROMPTS), original)


@pytest.mark.parametrize("made_for", tiny.FAMILIES)
@pytest.mark.parametrize("layer", range(3))
def test_peft_loads_the_adapter_and_switches_it_off_again(tiny_clip, tmp_path, made_for, layer):
    path, source = tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face"
    edits.make(tiny_clip, path, made_for, layer)
    deltas.apply(path, source, tmp_path / "edited")
    edit, header = deltas.read(path)
    factors = adapters.adapter(edit, 0.0)
    adapters.save_peft(tmp_path / "adapter", factors, header["model"], (path.name, header))
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "pixel_values": torch.ones(1, 3, 64, 64)}

    def features(model):
        with torch.no_grad():
            found = model(**inputs)
        return torch.cat([found.text_embeds, found.image_embeds])

    original, edited = (CLIPModel.from_pretrained(f, dtype=torch.float32).eval() for f in (source, tmp_path / "edited"))
    before, after = features(original), features(edited)
    assert not torch.allclose(before, after, atol=1e-3)
    loaded = PeftModel.from_pretrained(original, tmp_path / "adapter")
    assert torch.allclose(features(loaded), after, atol=2e-3)
    with loaded.disable_adapter():
        assert torch.equal(features(loaded), before)
    assert loaded.peft_config["default"].rank_pattern == {module: f.rank for module, f in factors.items()}
    assert ModelCard.load(tmp_path / "adapter" / cards.FILE).data.library_name == "peft"


def test_an_adapter_replaces_an_adapter_and_nothing_else(tiny_clip, tmp_path):
    path, kept = tmp_path / "a.delta.safetensors", tmp_path / "mine" / "notes.txt"
    edits.make(tiny_clip, path, "hugging_face", 0)
    edit, header = deltas.read(path)
    given = adapters.adapter(edit), "mini", (path.name, header)
    kept.parent.mkdir()
    kept.write_text("years of work")
    with pytest.raises(SlugError, match="holds no adapter"):
        adapters.save_peft(kept.parent, *given)
    assert kept.read_text() == "years of work"
    for _ in range(2):
        adapters.save_peft(tmp_path / "adapter", *given)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file() and tiny.left_over(tmp_path) == []
