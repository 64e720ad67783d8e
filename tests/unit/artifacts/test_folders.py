"""Model folders: their kinds, their copies of the weights, and the files that cannot be edited."""

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from slug.artifacts import folders
from slug.errors import SlugError


@pytest.mark.parametrize(
    ("folder", "kind", "family", "file"),
    [
        ("tiny_clip/open_clip", "clip", "open_clip_vit", "open_clip_model.safetensors"),
        ("tiny_clip/hugging_face", "clip", "hf", "model.safetensors"),
        ("tiny_pipeline/pipeline", "diffusers", "diffusers", "text_encoder/model.safetensors"),
        ("tiny_llava/llava", "llava", "llava", "model.safetensors"),
    ],
)
def test_kinds_of_model_folders(request, folder, kind, family, file):
    fixture, part = folder.split("/")
    found = folders.scan(request.getfixturevalue(fixture) / part)
    assert found.kind == kind and found.fixed == []
    assert [(c.family, c.label, set(c.files.values())) for c in found.copies] == [(family, file, {file})]


@pytest.mark.parametrize("vision", [{"timm_model_name": "x"}, {"layers": [3, 4, 6, 3]}])
def test_other_towers_of_open_clip_keep_their_own_names(tmp_path, vision):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": vision}}))
    save_file({"visual.trunk.x.weight": torch.ones(2, 2)}, tmp_path / "open_clip_model.safetensors")
    [copy] = folders.scan(tmp_path).copies
    assert copy.family == "open_clip" and copy.native == {"visual.trunk.x.weight": "visual.trunk.x.weight"}


def shard(folder, files):
    """Put the tensors of folder/model.safetensors into several files, in turn, with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    place = {n: files[i % len(files)] for i, n in enumerate(sorted(tensors))}
    for file in files:
        save_file({n: t for n, t in tensors.items() if place[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def test_shards_are_one_copy(tiny_llava, tmp_path):
    shutil.copytree(tiny_llava / "llava", tmp_path / "m")
    whole = folders.scan(tmp_path / "m").copies[0]
    shard(tmp_path / "m", ["a.safetensors", "b.safetensors"])
    [copy] = folders.scan(tmp_path / "m").copies
    assert copy.label == "model.safetensors.index.json" and copy.native == whole.native and copy.shapes == whole.shapes


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"x": "../victim.safetensors"}}, "no file name"),
        ({"weight_map": {"x": "/etc/passwd"}}, "no file name"),
        ({"weight_map": {"x": ["a"]}}, "no file name"),
        ({"weight_map": {"x": "lost.safetensors"}}, "which is not there"),
        ({"weight_map": []}, "no weight_map"),
        ([], "holds no JSON object"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_an_index_that_cannot_be_used_is_one_line(tmp_path, index, said):
    (tmp_path / "m").mkdir()
    save_file({"x": torch.ones(2, 2)}, tmp_path / "victim.safetensors")
    (tmp_path / "m" / "config.json").write_text("{}")
    text = index if isinstance(index, str) else json.dumps(index)
    (tmp_path / "m" / "model.safetensors.index.json").write_text(text)
    with pytest.raises(SlugError, match=said):
        folders.scan(tmp_path / "m")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"vision_cfg": []}}', "\0", "[" * 100_000]
)
@pytest.mark.parametrize("file", ["open_clip_config.json", "model_index.json", "config.json"])
def test_a_config_that_cannot_be_used_is_one_line(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    if (file != "open_clip_config.json" and text.startswith('{"')) or text == "{}":
        text = "{}"
    if file != "open_clip_config.json" and text == "{}":
        assert folders.scan(tmp_path).copies == []
    else:
        with pytest.raises(SlugError, match="get a sound copy of the model"):
            folders.scan(tmp_path)


def test_a_folder_of_no_model_is_refused(tmp_path):
    with pytest.raises(SlugError, match="is not a model folder"):
        folders.scan(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SlugError, match="is no folder"):
        folders.scan(tmp_path / "file")


def test_a_link_to_nothing_is_said(tiny_clip, tmp_path):
    shutil.copytree(tiny_clip / "open_clip", tmp_path / "m")
    (tmp_path / "m" / "merges.txt.new").symlink_to(tmp_path / "blob")
    with pytest.raises(SlugError, match="is a link to a file that is not there"):
        folders.scan(tmp_path / "m")


def test_what_cannot_be_edited_is_named(tiny_clip, tmp_path):
    """Formats of other libraries, histories and files of trainings; texts, pictures and vocabularies are no weights."""
    shutil.copytree(tiny_clip / "open_clip", tmp_path / "m")
    weights = bytes(range(256)) * 4
    fixed = [
        "flax_model.msgpack",
        "tf_model.h5",
        "onnx/model.onnx",
        "training_args.bin",
        "rust_model.ot",
        "x.gguf",
        "w.gz",
        "w.model",
    ]
    for name in [*fixed, ".git/objects/ab", "tokenizer.model", "picture.png"]:
        tiny.write_file(tmp_path / "m" / name, weights)
    for name in ["notes.md", "onnx/config.json", "LICENSE", "é.txt"]:
        tiny.write_file(tmp_path / "m" / name, "é".encode() * 4000)
    (tmp_path / "m" / "loop").symlink_to(tmp_path / "m")
    assert sorted(folders.scan(tmp_path / "m").fixed) == sorted([*fixed, ".git"])


def test_the_encoders_of_a_pipeline_are_found_by_its_files(tiny_pipeline, tmp_path):
    """A checkpoint of one file beside the folders holds the encoders, too, under names of its own."""
    shutil.copytree(tiny_pipeline / "pipeline", tmp_path / "m")
    shutil.copytree(tmp_path / "m" / "text_encoder", tmp_path / "m" / "text_encoder_2")
    text = load_file(tmp_path / "m" / "text_encoder" / "model.safetensors")
    named = {f"cond_stage_model.transformer.{n}": t for n, t in text.items()} | {"model.diffusion_model.x": torch.ones(3)}
    save_file(named, tmp_path / "m" / "v1-5-pruned-emaonly.safetensors")
    found = folders.scan(tmp_path / "m")
    assert found.encoders == ["text_encoder", "text_encoder_2"]
    assert [c.label for c in found.copies_of("text_encoder")] == [
        "text_encoder/model.safetensors",
        "v1-5-pruned-emaonly.safetensors",
    ]
    assert found.copies[0].native.keys() == found.copies[1].native.keys()
