"""CLIP_benchmark on a folder that this project edited gives this project's own accuracy, where that package is installed."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from importlib import metadata

import pytest
import tiny
import torch
from wrappers import ROOT

from slug.artifacts import deltas
from slug.core.edit import Edit
from slug.data import evaluation_sets
from slug.evaluation import zeroshot

NUMPY = ".".join(metadata.version("numpy").split(".")[:2])
pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("clip_benchmark"), reason="CLIP_benchmark is not installed (docs/use.md)"
    ),
    # Its version 1.6.2 makes a number of an array of one item, which numpy refuses since 2.4.
    pytest.mark.skipif(tuple(map(int, NUMPY.split("."))) >= (2, 4), reason="CLIP_benchmark needs a numpy below 2.4"),
]
TEMPLATES = ("a photo of {}.", "{}.")
# As the command clip_benchmark; the first import lets a CUDA build of torchvision run with a CPU build of torch.
COMMAND = "import slug.torchvision_cpu; from clip_benchmark.cli import main; main()"


def edited_folder(taught_clip, folder, size):
    """A CLIP's folder with a delta of relative `size`; 0 for the folder as it is."""
    source = taught_clip / "open_clip"
    if not size:
        return source
    clip = tiny.load(taught_clip, "open_clip")
    name = "visual.proj"
    noise = torch.randn(clip.parameters[name].shape, generator=torch.Generator().manual_seed(0))
    change = size * noise * clip.parameters[name].detach().float().norm() / noise.norm()
    deltas.save(
        folder / "x.delta.safetensors", clip, Edit({name: change}).changes, name="x", layer=name, step=1.0, metrics={}
    )
    return deltas.apply(folder / "x.delta.safetensors", source, folder / "edited")


def write_webdataset(folder, world):
    """The tiny world's ImageNet as CLIP_benchmark reads data sets; returns the names of its classes."""
    rows = {f: name for f, (name, _) in evaluation_sets.imagenet_classes(world / "ImageNet/val").items()}
    classes = list(dict.fromkeys(rows.values()))
    pictures = [p for folder in rows for p in sorted((world / "ImageNet/val" / folder).glob("*.*"))]
    test = folder / "test"
    test.mkdir(parents=True)
    with tarfile.open(test / "0.tar", "w") as tar:
        for i, path in enumerate(pictures):
            label = str(classes.index(rows[path.parent.name])).encode()
            for end, content in ((path.suffix[1:].lower().replace("jpeg", "jpg"), path.read_bytes()), ("cls", label)):
                about = tarfile.TarInfo(f"s{i:07d}.{end}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    (test / "nshards.txt").write_text("1")
    return classes


@pytest.mark.parametrize("size", [0, 1.0])
def test_clip_benchmark_gives_our_accuracy(taught_clip, tiny_world, tmp_path, size):
    folder = edited_folder(taught_clip, tmp_path, size)
    classes = write_webdataset(tmp_path / "data", tiny_world)
    clip = tiny.load_folder(folder)
    pictures = evaluation_sets.load_imagenet(tiny_world / "ImageNet/val", clip.transform)
    assert classes == pictures.names and pictures.broken == 0
    (tmp_path / "data/classnames.txt").write_text("\n".join(pictures.names))
    (tmp_path / "data/zeroshot_classification_templates.txt").write_text(
        "\n".join(t.replace("{}", "{c}") for t in TEMPLATES)
    )
    where = ["--dataset", "wds/tiny", "--dataset_root", tmp_path / "data", "--output", tmp_path / "out.json"]
    model = ["--model", f"local-dir:{folder}", "--pretrained", "", "--no_amp", "--num_workers", "0", "--batch_size", "16"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "eval", *map(str, where), *model],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads((tmp_path / "out.json").read_text())["metrics"]["acc1"]
    features = zeroshot.image_features(clip, pictures.images)
    weights = zeroshot.classifier(clip, pictures.names, TEMPLATES)
    ours = zeroshot.accuracies(zeroshot.ranks(features, weights, pictures.labels, torch.zeros_like(pictures.blocks)))[0]
    assert theirs == pytest.approx(ours, abs=1e-6)
