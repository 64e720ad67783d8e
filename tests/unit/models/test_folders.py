"""What a model folder may not hold: code, other architectures, absurd sizes, and weights that are not all there."""

import json
import shutil

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from slug import models
from slug.artifacts import deltas
from slug.core import gradients, layers, losses
from slug.core.edit import Edit
from slug.errors import SlugError
from slug.models import diffusion, vlm

CLIPS = {"open_clip": "open_clip_config.json", "hugging_face": "config.json"}


@pytest.fixture
def copies(tiny_clip, tmp_path):
    """A copy of both folders of a tiny CLIP."""
    for family in CLIPS:
        shutil.copytree(tiny_clip / family, tmp_path / family)
    return tmp_path


def change(path, *keys, value):
    """Set one value within a JSON file."""
    config = json.loads(path.read_text())
    part = config
    for key in keys[:-1]:
        part = part.setdefault(key, {})
    part[keys[-1]] = value
    path.write_text(json.dumps(config))


def drop(path, *beginnings):
    """Take tensors out of a weight file."""
    kept = {n: t for n, t in load_file(path).items() if not n.startswith(beginnings)}
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "file", "keys", "value"),
    [
        ("open_clip", "open_clip_config.json", ("model_cfg", "text_cfg", "tokenizer_kwargs"), {"trust_remote_code": True}),
        ("open_clip", "open_clip_config.json", ("model_cfg", "text_cfg", "hf_model_name"), "someone/text"),
        ("open_clip", "open_clip_config.json", ("model_cfg", "vision_cfg", "timm_model_name"), "hf-hub:someone/net"),
        ("open_clip", "tokenizer_config.json", ("auto_map",), {"AutoTokenizer": ["evil.Evil", None]}),
        ("hugging_face", "config.json", ("auto_map",), {"AutoModel": "evil.Evil"}),
        ("hugging_face", "preprocessor_config.json", ("auto_map",), {"AutoImageProcessor": "evil.Evil"}),
    ],
)
def test_a_folder_that_asks_for_code_or_another_model_is_refused(copies, family, file, keys, value):
    change(copies / family / file, *keys, value=value)
    (copies / family / "evil.py").write_text(f"open({str(copies / 'ran')!r}, 'w')\n")
    with pytest.raises(SlugError, match="asks for code or for another model"):
        tiny.load(copies, family)
    assert not (copies / "ran").exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"'])
@pytest.mark.parametrize("family", CLIPS)
def test_a_configuration_that_is_none_is_refused(copies, family, text):
    (copies / family / CLIPS[family]).write_text(text)
    with pytest.raises(SlugError):
        tiny.load(copies, family)


@pytest.mark.parametrize("value", [10**9, 0, -1, 10**7])
@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("open_clip", ("model_cfg", "vision_cfg", "width")),
        ("open_clip", ("model_cfg", "text_cfg", "layers")),
        ("open_clip", ("model_cfg", "embed_dim")),
        ("hugging_face", ("vision_config", "hidden_size")),
        ("hugging_face", ("text_config", "vocab_size")),
    ],
)
def test_absurd_sizes_are_refused_before_a_model_is_built(copies, monkeypatch, family, keys, value):
    def build(*given, **more):
        raise AssertionError("a model is built")

    import open_clip
    import transformers

    monkeypatch.setattr(open_clip, "create_model_and_transforms", build)
    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", build)
    change(copies / family / CLIPS[family], *keys, value=value)
    with pytest.raises(SlugError, match=r"no size of this model|describes a model of other sizes"):
        tiny.load(copies, family)


def test_heads_that_do_not_divide_the_width_are_refused(copies):
    change(copies / "hugging_face/config.json", "text_config", "num_attention_heads", value=5)
    with pytest.raises(SlugError, match="cannot load Hugging Face CLIP"):
        tiny.load(copies, "hugging_face")


@pytest.mark.parametrize("kind", ["siglip", "chinese_clip", "clip_text_model"])
def test_a_folder_of_another_family_is_refused_by_its_name(copies, kind):
    change(copies / "hugging_face/config.json", "model_type", value=kind)
    with pytest.raises(SlugError, match=f"model_type is '{kind}'; only"):
        tiny.load(copies, "hugging_face")


@pytest.mark.parametrize("beginning", ["visual_projection", "vision_model", "text_model.encoder.layers.1.mlp.fc1.weight"])
def test_weights_that_lack_tensors_are_refused_by_name(copies, beginning):
    drop(copies / "hugging_face/model.safetensors", beginning)
    with pytest.raises(SlugError, match=f"weights of Hugging Face CLIP .* lack .*{beginning}"):
        tiny.load(copies, "hugging_face")


def test_tensors_without_a_place_are_named(copies, capsys):
    path = copies / "hugging_face/model.safetensors"
    save_file(load_file(path) | {"extra.weight": torch.ones(2)}, path, metadata={"format": "pt"})
    tiny.load(copies, "hugging_face")
    assert "has no place for extra.weight; left out" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["bin", "fp16", "sharded", "linked"])
def test_every_layout_of_weights_is_loaded(copies, layout):
    folder, before = copies / "hugging_face", tiny.load(copies, "hugging_face")
    path = folder / "model.safetensors"
    if layout == "bin":
        torch.save(load_file(path), folder / "pytorch_model.bin")
        path.unlink()
    elif layout == "fp16":
        path.rename(folder / "model.fp16.safetensors")
    elif layout == "sharded":
        before.module.save_pretrained(folder, max_shard_size="20KB")
        path.unlink(missing_ok=True)
    else:
        folder.rename(copies / "elsewhere")
        folder.symlink_to(copies / "elsewhere")
    assert tiny.same_tensors(tiny.load(copies, "hugging_face").parameters, before.parameters)


@pytest.mark.parametrize("part", ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"])
def test_every_part_of_a_pipeline_has_to_have_its_weights(tiny_pipeline, tmp_path, part):
    shutil.copytree(tiny_pipeline, tmp_path / "x")
    path = tmp_path / f"x/pipeline/{part}.safetensors"
    drop(path, next(n for n in sorted(load_file(path)) if n.endswith("weight")))
    with pytest.raises(SlugError, match=part.split("/")[0]):
        tiny.load_pipeline(tmp_path / "x")


def relayout(folder, layout, *, half=False):
    """Keep a pipeline folder's weights as .bin files only, or as its fp16 variant only; `half` rounds them as well."""
    for path in sorted(folder.glob("*/*.safetensors")):
        weights = {n: t.half() if half and t.is_floating_point() else t for n, t in load_file(path).items()}
        if layout == "bin":
            name = "pytorch_model.bin" if path.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
            torch.save(weights, path.with_name(name))
        else:
            save_file(weights, path.with_name(f"{path.stem}.fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()


@pytest.mark.parametrize("layout", ["bin", "fp16"])
def test_a_pipeline_of_another_layout_draws_the_same(tiny_pipeline, tmp_path, layout):
    shutil.copytree(tiny_pipeline, tmp_path / "x")
    relayout(tmp_path / "x/pipeline", layout)
    made = [tiny.load_pipeline(f).generate(["alien"], [0]) for f in (tiny_pipeline, tmp_path / "x")]
    assert torch.equal(*made)


@pytest.mark.parametrize(("layout", "half"), [("bin", False), ("bin", True), ("fp16", True)])
def test_a_pipeline_of_another_layout_goes_through_load_a_step_apply_and_load(tiny_pipeline, tmp_path, layout, half):
    from diffusers import StableDiffusionPipeline

    shutil.copytree(tiny_pipeline, tmp_path / "x")
    relayout(tmp_path / "x/pipeline", layout, half=half)
    model = tiny.load_pipeline(tmp_path / "x")
    gradient, _ = gradients.compute(model.clip, tiny.pairs(4), losses.cosine_embedding, encoder="language")
    layer = next(n for n in model.candidates() if "fc1.weight" in n)
    step = layers.first_step([model.tensors[layer]], [gradient[layer]])
    edit = Edit.along(model.clip, layer, gradient, 10 * step)
    about = {"name": "alien", "layer": layer, "step": edit.step, "metrics": {}}
    deltas.save(tmp_path / "a.delta.safetensors", model, edit.changes, **about)
    edited = deltas.apply(tmp_path / "a.delta.safetensors", tmp_path / "x/pipeline", tmp_path / "edited")
    assert not list(edited.glob("[!s]*/*.safetensors" if layout == "bin" else "[!s]*/*.bin"))  # in the layout that it had
    how = {"variant": "fp16"} if layout == "fp16" else {}
    loaded = StableDiffusionPipeline.from_pretrained(edited, torch_dtype=torch.float32, safety_checker=None, **how)
    before = model.embed(["alien"])
    with edit.applied(model):
        wanted = model.embed(["alien"])
    found = loaded.encode_prompt(["alien"], "cpu", 1, False)[0]
    assert torch.allclose(found, wanted, atol=1e-2) and not torch.allclose(before, wanted, atol=5e-2)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """put(id, folder) -> the snapshot: a copy of a model folder in a cache of the hub, which is all that can be reached."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(model, folder):
        place = tmp_path / "hub" / f"models--{model.replace('/', '--')}"
        snapshot = place / "snapshots" / (40 * "a")
        shutil.copytree(folder, snapshot)
        (place / "refs").mkdir()
        (place / "refs/main").write_text(snapshot.name)
        (snapshot / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        return snapshot

    return put


CODE = {"auto_map": {"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}}
CODE |= {"tokenizer_kwargs": {"trust_remote_code": True}, "custom_pipeline": "evil"}


@pytest.mark.parametrize("key", CODE)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_clip_of_the_hub_that_asks_for_code_is_refused(hub, tiny_clip, tmp_path, file, key):
    change(hub("someone/clip", tiny_clip / "hugging_face") / file, key, value=CODE[key])
    with pytest.raises(SlugError, match="asks for code or for another model"):
        models.load(clip_model_id="someone/clip")
    assert not (tmp_path / "ran").exists()


def test_sound_models_of_the_hub_are_loaded(hub, tiny_clip, tiny_pipeline, tiny_llava):
    hub("someone/clip", tiny_clip / "hugging_face")
    clip = models.load(clip_model_id="someone/clip")
    assert tiny.same_tensors(dict(clip.parameters), dict(tiny.load(tiny_clip, "hugging_face").parameters))
    hub("someone/pipe", tiny_pipeline / "pipeline")
    drawn = diffusion.load("someone/pipe", clip, steps=2, guidance=2).generate(["alien"], [0])
    assert torch.equal(drawn, tiny.load_pipeline(tiny_pipeline, steps=2, guidance=2.0).generate(["alien"], [0]))
    hub("someone/llava", tiny_llava / "llava")
    assert vlm.load("someone/llava", "someone/clip").label.endswith("llava")


@pytest.mark.parametrize("place", ["model_index.json", "unet/config.json", "tokenizer/tokenizer_config.json"])
def test_a_pipeline_of_the_hub_that_asks_for_code_is_refused(hub, tiny_pipeline, tmp_path, place):
    snapshot = hub("someone/pipe", tiny_pipeline / "pipeline")
    change(snapshot / place, "auto_map", value=CODE["auto_map"])
    with pytest.raises(SlugError, match="asks for code or for another model"):
        diffusion.load("someone/pipe", tiny.load(tiny_pipeline, "hugging_face"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_an_assistant_of_the_hub_that_asks_for_code_is_refused(hub, tiny_llava, tmp_path, place):
    snapshot = hub("someone/llava", tiny_llava / "llava")
    change(snapshot / place, "auto_map", value=CODE["auto_map"])
    with pytest.raises(SlugError, match="asks for code or for another model"):
        vlm.load("someone/llava", str(tiny_llava / "hugging_face"))
    assert not (tmp_path / "ran").exists()


def test_an_id_that_is_not_there_is_said_in_one_line(hub):
    with pytest.raises(SlugError, match=r"cannot load Hugging Face CLIP someone/clip: .*give a folder or a known id"):
        models.load(clip_model_id="someone/clip")


@pytest.mark.parametrize("value", [["evil", "Evil"], ["pipeline", "Evil"]])
def test_a_pipeline_with_code_of_its_own_is_refused(tiny_pipeline, tmp_path, value):
    shutil.copytree(tiny_pipeline, tmp_path / "x")
    change(tmp_path / "x/pipeline/model_index.json", "unet", value=value)
    with pytest.raises(SlugError, match=r"asks for code or for another model \(unet\)"):
        tiny.load_pipeline(tmp_path / "x")


def test_a_safety_checker_is_off_and_said_so(tiny_pipeline, tmp_path, capsys):
    shutil.copytree(tiny_pipeline, tmp_path / "x")
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    change(tmp_path / "x/pipeline/model_index.json", "safety_checker", value=checker)
    assert tiny.load_pipeline(tmp_path / "x").pipe.safety_checker is None
    assert "the safety checker of" in capsys.readouterr().out


def test_broken_weights_of_a_pipeline_are_refused(tiny_pipeline, tmp_path):
    shutil.copytree(tiny_pipeline, tmp_path / "x")
    path = tmp_path / "x/pipeline/unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"][0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(SlugError, match=r"hold NaN or infinity \(unet\.conv_in\.weight\)"):
        tiny.load_pipeline(tmp_path / "x")


@pytest.mark.parametrize("drawn", ["generate", "latents"])
def test_pictures_that_are_nan_are_not_returned_or_written(tiny_pipeline, tmp_path, drawn):
    loaded = tiny.load_pipeline(tiny_pipeline)
    with torch.no_grad():
        next(loaded.pipe.unet.parameters()).fill_(torch.nan)
    with pytest.raises(diffusion.BrokenPictures, match="1 of 1 pictures"):
        getattr(loaded, drawn)(["alien"], [0])
    with pytest.raises(diffusion.BrokenPictures):
        diffusion.write_pictures(loaded, [("alien", 0)], tmp_path)
    assert not list(tmp_path.glob("*.png"))


def test_a_llava_that_lacks_tensors_or_is_another_model_is_refused(tiny_llava, tiny_clip, tmp_path):
    shutil.copytree(tiny_llava / "llava", tmp_path / "llava")
    clip = str(tiny_llava / "hugging_face")
    path = tmp_path / "llava/model.safetensors"
    lost = next(n for n in load_file(path) if "projector" in n)
    drop(path, lost)
    with pytest.raises(SlugError, match=r"lack .*projector"):
        vlm.load(str(tmp_path / "llava"), clip)
    with pytest.raises(SlugError, match="model_type is 'clip'; only 'llava' is supported"):
        vlm.load(str(tiny_clip / "hugging_face"), clip)


def test_checkpoints_that_hold_more_than_tensors_are_refused_with_the_way_out(tmp_path):
    import argparse

    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "x.pt")
    with pytest.raises(SlugError, match=r"weights_only=True.*save its state_dict alone"):
        models.load("RN50", str(tmp_path / "x.pt"))


def test_a_black_picture_of_an_earlier_run_is_drawn_anew(tiny_pipeline, tmp_path):
    loaded = tiny.load_pipeline(tiny_pipeline)
    [path] = diffusion.write_pictures(loaded, [("alien", 0)], tmp_path)
    drawn = path.read_bytes()
    Image.new("RGB", (16, 16)).save(path)
    assert diffusion.is_black(path) and diffusion.write_pictures(loaded, [("alien", 0)], tmp_path) == [path]
    assert path.read_bytes() == drawn and not diffusion.is_black(path)
