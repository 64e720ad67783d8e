"""Deltas and edited folders: revert is exact, both formats agree, the wrong base is refused."""

import json
import shutil

import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from slug import files
from slug.artifacts import cards, deltas
from slug.core import gradients, layers, losses
from slug.core.edit import applied, edit_of
from slug.errors import SlugError

WEIGHTS = {"open_clip": "open_clip_model.safetensors", "hugging_face": "model.safetensors"}
LAYERS = {  # fused, transposed and plain; and their partners
    "open_clip": (
        "visual.transformer.resblocks.1.attn.in_proj_weight",
        "text_projection",
        "transformer.resblocks.0.mlp.c_fc.weight",
    ),
    "hugging_face": (
        "vision_model.encoder.layers.1.self_attn.k_proj.weight",
        "text_projection.weight",
        "text_model.encoder.layers.0.mlp.fc1.weight",
    ),
}


@pytest.fixture(scope="module", params=[torch.float32, torch.float16], ids=["fp32", "fp16"])
def folder(request, tmp_path_factory):
    """Folder of a random CLIP in both formats."""
    out = tmp_path_factory.mktemp("base")
    tiny.write_random_clip(out, dtype=request.param)
    return out


def make(folder, path, family="open_clip", layer=0, relative=0.5):
    """Write the delta of a step on one layer, as large a part of its weights as `relative`; returns the edit."""
    clip = tiny.load(folder, family)
    grads, _ = gradients.compute(clip, tiny.pairs(4), losses.cosine_embedding)
    layer = LAYERS[family][layer]
    group = clip.group(layer)
    step = 10 * relative * layers.first_step([clip.parameters[n] for n in group], [grads[n] for n in group])
    edit = edit_of(clip, layer, grads, step)
    figures = {"forget_acc1": 0.025, "n_forget": 40, "split": "test"}
    deltas.save(path, clip, edit, name="a frog", layer=layer, step=step, metrics=figures)
    return edit


def contents(folder):
    """{relative path: bytes} of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_applied_puts_the_weights_back_even_after_an_error(clip):
    before = {n: p.clone() for n, p in clip.parameters.items()}
    name = next(iter(clip.candidates()))
    change = torch.randn(before[name].shape)
    with pytest.raises(ZeroDivisionError), applied(clip, {name: change}):
        assert torch.equal(clip.parameters[name], before[name] + change)
        assert all(torch.equal(p, before[n]) for n, p in clip.parameters.items() if n != name)
        1 / 0  # noqa: B018
    assert tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("layer", range(3))
def test_an_edited_folder_is_base_plus_step_times_gradient_and_reverts_to_the_bit(folder, tmp_path, family, layer):
    source, path = folder / family, tmp_path / "a.delta.safetensors"
    edit = make(folder, path, family, layer)
    before = contents(source)
    deltas.apply(path, source, tmp_path / "edited")
    base, edited = (load_file(f / WEIGHTS[family]) for f in (source, tmp_path / "edited"))
    assert base.keys() == edited.keys()
    for name, value in base.items():
        wanted = (value.float() + edit[name]).to(value.dtype) if name in edit else value
        assert edited[name].dtype == value.dtype and torch.equal(edited[name], wanted), name
        assert torch.equal(edited[name], value) == (name not in edit)
    assert contents(source) == before

    deltas.revert(path, tmp_path / "edited", tmp_path / "reverted")
    assert contents(tmp_path / "reverted") == before
    deltas.revert(path, tmp_path / "edited", tmp_path / "edited")  # in place
    assert contents(tmp_path / "edited") == before
    assert tiny.left_over(tmp_path) == []


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_deltas_on_one_layer_come_out_in_either_order(folder, tmp_path, family, order):
    source, edited = folder / family, tmp_path / "edited"
    make(folder, tmp_path / "a.delta.safetensors", family, 0, relative=0.3)
    make(folder, tmp_path / "b.delta.safetensors", family, 0, relative=700.0)  # so large that adding it would lose bits
    alone = {}
    for name in "ab":
        deltas.apply(tmp_path / f"{name}.delta.safetensors", source, tmp_path / name)
        alone[name] = load_file(tmp_path / name / WEIGHTS[family])
    deltas.apply(tmp_path / "b.delta.safetensors", tmp_path / "a", edited)
    both = load_file(edited / WEIGHTS[family])
    deltas.apply(tmp_path / "a.delta.safetensors", tmp_path / "b", tmp_path / "other")
    assert tiny.same_tensors(both, load_file(tmp_path / "other" / WEIGHTS[family]))
    assert not any(tiny.same_tensors(both, one) for one in alone.values())
    deltas.revert(f"{order[0]}.delta.safetensors", edited, edited)
    assert tiny.same_tensors(load_file(edited / WEIGHTS[family]), alone[order[1]])
    deltas.revert(f"{order[1]}.delta.safetensors", edited, edited)
    assert contents(edited) == contents(source)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_edited_folder_has_a_card_and_the_original_one_comes_back(folder, tmp_path, family):
    source, edited = tmp_path / "source", tmp_path / "edited"
    shutil.copytree(folder / family, source)
    (source / cards.FILE).write_text("---\nlicense: mit\n---\n\n# A fine model\n")
    for name in "ab":
        make(folder, tmp_path / f"{name}.delta.safetensors", layer="ab".index(name))
    deltas.apply(tmp_path / "a.delta.safetensors", source, edited)
    one = (edited / cards.FILE).read_text()
    deltas.apply(tmp_path / "b.delta.safetensors", edited, edited)
    found = ModelCard.load(edited / cards.FILE)
    assert found.data.license == "mit" and found.data.base_model and "machine-unlearning" in found.data.tags
    assert found.text.count("forget accuracy @1 2.5% of 40 (test split)") == 2 and found.text.count("# A fine model") == 1
    assert "without a frog, a frog" in found.text and "--delta a.delta.safetensors b.delta.safetensors" in found.text
    deltas.revert("b.delta.safetensors", edited, edited)
    assert (edited / cards.FILE).read_text() == one
    deltas.revert("a.delta.safetensors", edited, edited)
    assert contents(edited) == contents(source)
    (source / cards.FILE).write_text("---\nlicense: [\n---\n")
    with pytest.raises(SlugError, match="cannot be read as a model card"):
        deltas.apply(tmp_path / "a.delta.safetensors", source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("made_for", tiny.FAMILIES)
def test_one_delta_gives_both_formats_the_same_features(folder, tmp_path, made_for, layer):
    path, batch = tmp_path / "a.delta.safetensors", tiny.pairs(6)
    make(folder, path, made_for, layer)
    base = tiny.features(tiny.load(folder), batch)
    found = {}
    for family in tiny.FAMILIES:
        deltas.apply(path, folder / family, tmp_path / family)
        found[family] = tiny.features(tiny.load_folder(tmp_path / family), batch)
    for a, b in zip(*found.values(), strict=True):
        assert (a - b).abs().max() < 1e-5
    assert max((a - b).abs().max() for a, b in zip(base, found["open_clip"], strict=True)) > 1e-2


def test_the_folder_gives_what_the_edit_in_memory_gives(tiny_clip, tmp_path):
    for family in tiny.FAMILIES:
        clip, batch = tiny.load(tiny_clip, family), tiny.pairs(6)
        edit = make(tiny_clip, tmp_path / f"{family}.delta.safetensors", family)
        with applied(clip, edit):
            wanted = tiny.features(clip, batch)
        deltas.apply(tmp_path / f"{family}.delta.safetensors", tiny_clip / family, tmp_path / family)
        found = tiny.features(tiny.load_folder(tmp_path / family), batch)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_delta_is_small_and_says_what_it_is(folder, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    for family in tiny.FAMILIES:
        for layer in range(3):
            edit = make(folder, path, family, layer)
            in_fp16 = 2 * sum(t.numel() for t in edit.values())
            assert path.stat().st_size <= 2 * in_fp16 + 16_000
            with safe_open(path, "pt") as f:
                header = f.metadata()
                stored = sum(f.get_tensor(n).numel() for n in f.keys())  # noqa: SIM118
            assert stored == sum(t.numel() for t in edit.values())
            assert header["layer"] == LAYERS[family][layer] and float(header["step"]) > 0
            assert json.loads(header["metrics"]) == {"forget_acc1": 0.025, "n_forget": 40, "split": "test"}


def test_a_delta_of_another_base_is_refused(folder, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    make(folder, path)
    tiny.write_random_clip(tmp_path, seed=1)
    for family in tiny.FAMILIES:
        with pytest.raises(SlugError, match="made for other weights"):
            deltas.apply(path, tmp_path / family, tmp_path / "out")
        assert not (tmp_path / "out").exists() and tiny.left_over(tmp_path) == []


def test_a_delta_is_applied_once_and_only_what_is_applied_is_reverted(tiny_clip, tmp_path):
    path, source = tmp_path / "a.delta.safetensors", tiny_clip / "open_clip"
    make(tiny_clip, path)
    deltas.apply(path, source, tmp_path / "edited")
    before = contents(tmp_path / "edited")
    with pytest.raises(SlugError, match=r"applied to .* already"):
        deltas.apply(path, tmp_path / "edited", tmp_path / "edited")
    with pytest.raises(SlugError, match="is not applied"):
        deltas.revert("b.delta.safetensors", tmp_path / "edited", tmp_path / "edited")
    with pytest.raises(SlugError, match="is not empty"):
        deltas.apply(path, source, tmp_path / "edited")
    assert contents(tmp_path / "edited") == before


def test_a_model_without_the_layer_is_refused(tiny_clip, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    clip = tiny.load(tiny_clip)
    deltas.save(path, clip, {"visual.proj": torch.ones(32, 24)}, name="x", layer="visual.proj", step=1, metrics={})
    tensors, header = deltas.read(path)
    with files.replacing(path) as temporary:
        renamed = {n.replace("visual_projection", "elsewhere"): t for n, t in tensors.items()}
        deltas.save_file(renamed, temporary, metadata=header)
    with pytest.raises(SlugError, match=r"has no tensor elsewhere.weight"):
        deltas.apply(path, tiny_clip / "open_clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_deltas_go_in_at_once_and_come_out_in_any_order(folder, tmp_path, capsys):
    """Same layer and others: what is left is as if the reverted one had never been there."""
    source, names = folder / "open_clip", ["a", "b", "c"]
    for name, layer, relative in zip(names, (0, 0, 1), (0.5, -0.3, 0.2), strict=True):
        make(folder, tmp_path / f"{name}.delta.safetensors", layer=layer, relative=relative)
    paths = [tmp_path / f"{n}.delta.safetensors" for n in names]
    together = deltas.apply(paths, source, tmp_path / "together")
    tiny.run("a2_unlearn_slug", "list", "--model-dir", together)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [p.name for p in paths]
    weights = WEIGHTS["open_clip"]
    for gone in names:
        left = deltas.revert(f"{gone}.delta.safetensors", together, tmp_path / f"without-{gone}")
        only = deltas.apply([p for n, p in zip(names, paths, strict=True) if n != gone], source, tmp_path / f"only-{gone}")
        assert (left / weights).read_bytes() == (only / weights).read_bytes()
    back = deltas.revert([p.name for p in paths], together, tmp_path / "back")
    assert (back / weights).read_bytes() == (source / weights).read_bytes()
    with pytest.raises(SlugError, match="already; revert it first"):
        deltas.apply(paths[:1], together, tmp_path / "twice")


def test_two_deltas_of_one_file_name_are_refused(tiny_clip, tmp_path):
    """An edited folder knows its deltas by their file names: one of the two would be lost."""
    source, paths = tiny_clip / "open_clip", [tmp_path / part / "a.delta.safetensors" for part in "xy"]
    for layer, path in enumerate(paths):
        make(tiny_clip, path, layer=layer)
    for given in (paths, paths[:1] * 2):
        with pytest.raises(SlugError, match=r"would both be kept as a\.delta\.safetensors"):
            deltas.apply(given, source, tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_a_delta_in_a_models_own_names_is_the_edit_it_was_made_of(folder, tmp_path):
    for family in ("open_clip", "hugging_face"):
        for layer in range(3):
            path = tmp_path / f"{family}-{layer}.delta.safetensors"
            edit = make(folder, path, family, layer)
            clip = tiny.load(folder, family)
            found = deltas.native(clip, *deltas.read(path))
            assert found.keys() == edit.keys() and all(torch.equal(found[n], edit[n]) for n in edit)
    with torch.no_grad():
        clip.parameters[next(iter(edit))].add_(1)
    with pytest.raises(SlugError, match="made for other weights"):
        deltas.native(clip, *deltas.read(path))


@pytest.mark.parametrize("made_for", tiny.FAMILIES)
@pytest.mark.parametrize("layer", range(3))
def test_peft_loads_an_edit_as_an_adapter_and_switches_it_off_again(folder, tmp_path, made_for, layer):
    path, source = tmp_path / "a.delta.safetensors", folder / "hugging_face"
    make(folder, path, made_for, layer)
    deltas.apply(path, source, tmp_path / "edited")
    tiny.run("a2_unlearn_slug", "adapter", "--delta", path, "--out", tmp_path / "adapter", "--residual", 0)
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
    found = ModelCard.load(tmp_path / "adapter" / cards.FILE)
    assert found.data.library_name == "peft" and found.data.base_model and "lora" in found.data.tags
    assert "| `a.delta.safetensors` | a frog |" in found.text and "2.5% of 40" in found.text
    for module, rank in loaded.peft_config["default"].rank_pattern.items():
        assert f"| `{module}` | {rank} | 0.00% |" in found.text


@pytest.mark.parametrize("method, says", [("slug", "one step on one layer"), ("slug_rounds", "in rounds"), ("uce", "UCE")])
def test_a_card_says_how_the_edit_was_made(method, says):
    chosen = [["a", 2.0], ["b", 0.5]] if method == "slug_rounds" else [["a", 2.0]]
    metrics = {"method": method, "chosen": chosen, "UA": 0.9}
    header = {"name": "Noto", "layer": " + ".join(n for n, _ in chosen), "step": "0.5", "metrics": json.dumps(metrics)}
    text = cards.text("", "mini", {"d": header})
    assert says in text and ("one step on one layer" in text) == (method == "slug")
    assert ("- slug" in text) == method.startswith("slug")
    assert f"| {'2 + 0.5' if method == 'slug_rounds' else '2'} | UA 90.0%" in text


def test_an_adapter_replaces_an_adapter_and_nothing_else(folder, tmp_path, monkeypatch, capfd):
    path, kept = tmp_path / "a.delta.safetensors", tmp_path / "mine" / "notes.txt"
    make(folder, path, "hugging_face", 0)
    kept.parent.mkdir()
    kept.write_text("years of work")
    given = ["adapter", "--delta", path, "--out"]
    said = tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *given, kept.parent)
    assert "holds no adapter" in said and kept.read_text() == "years of work"
    for _ in range(2):
        tiny.run("a2_unlearn_slug", *given, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


@pytest.mark.parametrize("key, value", [("model", None), ("step", "one"), ("metrics", "{"), ("metrics", "[]")])
def test_a_damaged_header_is_one_line(tiny_clip, tmp_path, key, value):
    path = tmp_path / "a.delta.safetensors"
    make(tiny_clip, path, "open_clip")
    with safe_open(path, "pt") as f:
        header = f.metadata()
    header = {k: v for k, v in (header | {key: value}).items() if v is not None}
    save_file(load_file(path), path, metadata=header)
    with pytest.raises(SlugError, match=r"damaged header.*make the delta again"):
        deltas.read(path)
