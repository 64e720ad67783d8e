"""Loading CLIPs: what cannot be loaded is said in one line, and importing the package loads no library."""

import subprocess
import sys

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from slug import models
from slug.errors import SlugError
from slug.models import loading
from slug.models.hugging_face import HuggingFaceClip
from slug.models.openclip import OpenClip
from slug.settings import Model


def test_importing_the_package_loads_no_library():
    code = "import sys; from slug import models; models.label_of('x'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "slug.models.loading" in loaded and not {"torch", "open_clip", "transformers"} & set(loaded)


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = models.nothing


@pytest.mark.parametrize("family, kind", [("open_clip", OpenClip), ("hugging_face", HuggingFaceClip)])
def test_a_loaded_clip_is_in_float32_and_eval_mode(taught_clip, family, kind):
    clip = tiny.load(taught_clip, family)  # of weights in fp16
    assert type(clip) is kind and not clip.module.training and clip.autocast is None
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in clip.parameters.values())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_settings_name_the_model(tiny_clip, family):
    folder = tiny_clip / family
    given = {"model": f"local-dir:{folder}"} if family == "open_clip" else {"clip_model_id": str(folder)}
    clip = models.from_settings(Model(**given), "bf16", "cpu")
    assert clip.label == family and clip.autocast == torch.bfloat16
    assert tiny.same_tensors(clip.parameters, tiny.load(tiny_clip, family).parameters)


@pytest.mark.parametrize("family, tag", [("open_clip", "open_clip_local"), ("hugging_face", "hugging_face_local")])
def test_the_label_is_known_without_loading(tiny_clip, family, tag):
    folder = tiny_clip / family
    given = {"model": f"local-dir:{folder}"} if family == "open_clip" else {"clip_model_id": str(folder)}
    clip = tiny.load(tiny_clip, family)
    assert models.label_of(**given) == clip.label == family and clip.tag == tag


def test_the_label_of_a_published_model_is_safe_in_file_names():
    assert models.label_of("ViT-B-32") == "ViT-B-32" and models.label_of("", "a/b c") == "a-b-c"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "ViT-B-33", "pretrained": "random"}, r"open_clip has no model 'ViT-B-33'; similar names: ViT-B-16"),
        ({"model": "ViT-B-32"}, "--pretrained is missing for ViT-B-32"),
        ({"model": "ViT-B-32", "pretrained": "laion999"}, "ViT-B-32 has no weights 'laion999'"),
        ({"model": "ViT-B-32", "pretrained": "random", "precision": "fp8"}, "unknown precision 'fp8'"),
        ({"model": "local-dir:/nowhere"}, "model folder not found"),
        ({"clip_model_id": "/nowhere"}, "cannot load Hugging Face CLIP /nowhere"),
    ],
)
def test_a_model_that_is_not_there_is_said_in_one_line(arguments, said):
    with pytest.raises(SlugError, match=said):
        models.load(**arguments)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(SlugError, match=r"has no open_clip_config\.json"):
        models.load(f"local-dir:{tmp_path}")


def test_a_folder_without_weights_is_not_loaded_untrained(tmp_path):
    tiny.write_random_clip(tmp_path)
    (tmp_path / "open_clip/open_clip_model.safetensors").unlink()
    with pytest.raises(SlugError, match="cannot load"):
        tiny.load(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    tiny.write_random_clip(tmp_path)
    path = tmp_path / "open_clip/open_clip_model.safetensors"
    weights = load_file(path)
    weights["visual.proj"][0, 0] = torch.nan
    save_file(weights, path)
    with pytest.raises(SlugError, match=r"the weights of open_clip hold NaN or infinity \(visual\.proj\)"):
        tiny.load(tmp_path)


@pytest.mark.parametrize("pretrained, noted", [("laion400m_e32", True), ("laion2b_s34b_b79k", False)])
def test_weights_of_another_activation_are_noted(monkeypatch, capsys, pretrained, noted):
    import open_clip

    def no_download(*given, **more):
        raise RuntimeError("no network")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", no_download)
    with pytest.raises(SlugError, match=f"cannot load ViT-B-32 {pretrained}: no network"):
        models.load("ViT-B-32", pretrained)
    assert ("ViT-B-32-quickgelu is the exact model" in capsys.readouterr().out) == noted


def test_an_id_is_no_folder(tmp_path):
    assert loading.local_folder("openai/clip") is None and loading.local_folder(str(tmp_path)) == tmp_path
