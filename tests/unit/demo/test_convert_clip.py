"""The converter: an open_clip ViT and its Hugging Face copy give the same features."""

import json

import slug.torchvision_cpu  # noqa: F401  (before open_clip and transformers)

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor

from demo import convert_clip, tokenizer
from slug.errors import SlugError

# Every size differs from the others, so that no swapped or transposed tensor fits by chance.
VISION = {"image_size": 32, "layers": 3, "width": 48, "head_width": 16, "patch_size": 8, "mlp_ratio": 3.0}
TEXT = {"context_length": tokenizer.CONTEXT, "width": 40, "heads": 5, "layers": 2, "hf_tokenizer_name": "mini-clip"}
TEXTS = ["tiger", "A Father Christmas image in OpenMoji style.", "", "word " * 40]


def open_clip_folder(folder, *, quick_gelu=False, dtype=torch.float16):
    """Write an untrained open_clip folder, every parameter (biases and norms too) away from its first value."""
    text = TEXT | {"vocab_size": tokenizer.build(folder)}
    config = {"embed_dim": 24, "quick_gelu": quick_gelu, "vision_cfg": VISION, "text_cfg": text}
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    text = {k: v for k, v in text.items() if k != "hf_tokenizer_name"}  # of the folder, not of the module
    model = open_clip.CLIP(**{**config, "text_cfg": text})
    weights = {n: (p + 0.1 * torch.randn_like(p)).detach().to(dtype).contiguous() for n, p in model.named_parameters()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return weights


def features(folder, converted):
    """Unit features of pictures and texts: (open_clip's, Hugging Face's), each as (images, texts) in float32."""
    name = f"local-dir:{folder}"
    ours, _, preprocess = open_clip.create_model_and_transforms(name)
    theirs, processor = CLIPModel.from_pretrained(converted), CLIPProcessor.from_pretrained(converted)
    ours, theirs = ours.float().eval(), theirs.float().eval()
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]
    batch = processor(
        text=TEXTS, images=pictures, return_tensors="pt", padding=True, truncation=True, max_length=tokenizer.CONTEXT
    )
    with torch.no_grad():
        images = ours.encode_image(torch.stack([preprocess(p) for p in pictures]), normalize=True)
        texts = ours.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
        out = theirs(**batch)
    return (images, texts), (out.image_embeds, out.text_embeds)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_features_agree_in_float32(tmp_path, quick_gelu):
    open_clip_folder(tmp_path / "oc", quick_gelu=quick_gelu)
    convert_clip.convert(tmp_path / "oc", tmp_path / "hf")
    ours, theirs = features(tmp_path / "oc", tmp_path / "hf")
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape == (len(a), 24)
        assert (a - b).abs().max() < 1e-5
        assert (a[0] - a[1]).abs().max() > 1e-2  # the inputs do matter


def test_activation_is_carried_over(tmp_path):
    """With the other activation the features are not the same, so the test above can tell."""
    open_clip_folder(tmp_path / "oc", quick_gelu=True)
    convert_clip.convert(tmp_path / "oc", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for tower in ("vision_config", "text_config"):
        assert config[tower]["hidden_act"] == "quick_gelu"
        config[tower]["hidden_act"] = "gelu"
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    ours, theirs = features(tmp_path / "oc", tmp_path / "hf")
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_are_the_same_to_the_bit_and_all_are_used(tmp_path, dtype):
    weights = open_clip_folder(tmp_path / "oc", dtype=dtype)
    convert_clip.convert(tmp_path / "oc", tmp_path / "hf")
    converted = load_file(tmp_path / "hf" / "model.safetensors")
    assert {t.dtype for t in converted.values()} == {dtype}
    assert sum(t.numel() for t in converted.values()) == sum(t.numel() for t in weights.values())
    _, report = CLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report.values()), report
    q, k, v = (converted[f"text_model.encoder.layers.1.self_attn.{p}_proj.weight"] for p in "qkv")
    assert torch.equal(torch.cat([q, k, v]), weights["transformer.resblocks.1.attn.in_proj_weight"])
    assert torch.equal(converted["visual_projection.weight"].T, weights["visual.proj"])


def test_command_writes_beside_what_is_there_and_says_where(tmp_path, capsys):
    open_clip_folder(tmp_path / "oc")
    for _ in range(2):  # a second run replaces the first
        convert_clip.main(["--source", str(tmp_path / "oc"), "--out", str(tmp_path / "hf")])
    assert str(tmp_path / "hf") in capsys.readouterr().out
    wanted = {"config.json", "model.safetensors", "preprocessor_config.json", "vocab.json", "merges.txt"}
    wanted |= {"tokenizer_config.json", "special_tokens_map.json"}
    assert {p.name for p in (tmp_path / "hf").iterdir()} == wanted


@pytest.mark.parametrize(
    ("setting", "named"),
    [({"pool_type": "avg"}, "pool_type"), ({"ls_init_value": 0.1}, "ls_init"), ({"layers": [1, 1, 1, 1]}, "ResNet")],
)
def test_what_a_hugging_face_clip_cannot_be_is_refused(tmp_path, setting, named):
    open_clip_folder(tmp_path / "oc")
    path = tmp_path / "oc" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"] |= setting
    path.write_text(json.dumps(config))
    with pytest.raises(SlugError, match=named):
        convert_clip.convert(tmp_path / "oc", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors", "vocab.json"])
def test_missing_file_is_named(tmp_path, name):
    open_clip_folder(tmp_path / "oc")
    (tmp_path / "oc" / name).unlink()
    with pytest.raises(SlugError, match=name):
        convert_clip.convert(tmp_path / "oc", tmp_path / "hf")


def test_damaged_weights_are_named(tmp_path):
    open_clip_folder(tmp_path / "oc")
    path = tmp_path / "oc" / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SlugError, match="damaged"):
        convert_clip.convert(tmp_path / "oc", tmp_path / "hf")
