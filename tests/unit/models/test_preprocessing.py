"""Pictures are prepared as a Hugging Face folder's own processor prepares them."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from slug import models
from slug.errors import SlugError

WIDE = Image.fromarray(
    np.kron(np.random.default_rng(0).integers(0, 255, (12, 16, 3)), np.ones((12, 12, 1))).astype(np.uint8)
)
SQUASHED = {"do_center_crop": False, "size": {"height": 64, "width": 64}}


def folder_with(tiny_clip, folder, changes):
    shutil.copytree(tiny_clip / "hugging_face", folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": {"shortest_edge": 80}},
        {"size": 64, "crop_size": 64},
        {"resample": 2},
        {"resample": 1},
        SQUASHED,
        {"do_normalize": False},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False},
    ],
)
def test_pictures_are_those_of_the_processor(tiny_clip, tmp_path, changes):
    folder = folder_with(tiny_clip, tmp_path / "x", changes)
    clip = models.load(clip_model_id=str(folder))
    own = torch.as_tensor(np.asarray(CLIPImageProcessor.from_pretrained(folder)(WIDE)["pixel_values"][0])).float()
    mine = clip.normalise(clip.transform(WIDE)[None])[0]
    assert clip.side == 64 and mine.shape == own.shape
    assert (mine - own).abs().mean() < 2e-3 * (own.abs().max() + 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop_size": {"height": 32, "width": 32}}, "does not make images of 64 x 64"),
        ({"do_center_crop": False}, "does not make images of 64 x 64"),
        ({"image_std": [0.0, 1.0, 1.0]}, "no usable mean and deviation"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tiny_clip, tmp_path, changes, said):
    folder = folder_with(tiny_clip, tmp_path / "x", changes)
    with pytest.raises(SlugError, match=said):
        models.load(clip_model_id=str(folder))


def test_a_missing_preprocessor_is_refused(tiny_clip, tmp_path):
    folder = folder_with(tiny_clip, tmp_path / "x", {})
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SlugError, match="preprocessor_config"):
        tiny.load_folder(folder)
