"""Edited folders: every copy of the weights carries the edit, what cannot is not there, and a sealed folder is final."""

import json
import shutil

import slug.torchvision_cpu  # noqa: F401  (before open_clip, transformers and diffusers)

import diffusers
import edits
import open_clip
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file

from slug import files
from slug.artifacts import cards, deltas, folders
from slug.errors import SlugError
from slug.models import canonical

TEXT = "text_model.encoder.layers.0.mlp.fc1.weight"
VISION = "visual_projection.weight"
CAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


def make_delta(path, folder, name=TEXT, value=0.5, forgotten="Frog"):
    """Write the delta of one tensor of a Hugging Face CLIP, and return what the tensor becomes, {canonical name: tensor}."""
    clip = tiny.load_folder(folder)
    g = torch.Generator().manual_seed(0)
    change = value * torch.randn(clip.parameters[name].shape, generator=g)
    deltas.save(path, clip, {name: change}, name=forgotten, layer=name, step=1.0, metrics={"forget_acc1": 0.0})
    return {name: clip.parameters[name].detach() + change}


def add_formats(place, safe, pickled):
    """Write the weights of place/safe in 16 bits, as pickles and as what cannot be edited beside it."""
    weights = load_file(place / safe)
    stem = safe.removesuffix(".safetensors")
    for variant, dtype in CAST.items():
        cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in weights.items()}
        save_file(cast, place / f"{stem}.{variant}.safetensors", metadata={"format": "pt"})
    torch.save(weights, place / pickled)
    half = {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}
    torch.save(half, place / pickled.replace(".bin", ".fp16.bin"), _use_new_zipfile_serialization=False)  # as in old files
    raw = b"".join(t.numpy().tobytes() for t in weights.values())
    for name in ("flax_model.msgpack", "tf_model.h5", "model.onnx"):
        (place / name).write_bytes(b"\x93\0" + raw)


def add_shards(place):
    """Write the weights of place/model.safetensors in two shards, too, as another variant."""
    weights = load_file(place / "model.safetensors")
    names = [f"model.parts-{i:05d}-of-00002.safetensors" for i in (1, 2)]
    index = {n: names[i % 2] for i, n in enumerate(sorted(weights))}
    for name in names:
        save_file({n: t for n, t in weights.items() if index[n] == name}, place / name, metadata={"format": "pt"})
    files.write_json(place / "model.safetensors.index.parts.json", {"metadata": {}, "weight_map": index})


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """clip/: a CLIP in both libraries' formats; pipeline/: a pipeline; each with its weights in every kind of file."""
    folder = tmp_path_factory.mktemp("every-kind")
    tiny.write_random_clip(folder)
    tiny.write_pipeline(folder / "pipeline", folder / "hugging_face")
    clip = folder / "clip"
    shutil.copytree(folder / "open_clip", clip)
    shutil.copytree(folder / "hugging_face", clip, dirs_exist_ok=True)
    torch.save(load_file(clip / "open_clip_model.safetensors"), clip / "open_clip_pytorch_model.bin")
    for place in (clip, folder / "pipeline" / "text_encoder"):
        add_formats(place, "model.safetensors", "pytorch_model.bin")
        add_shards(place)
    for part in ("unet", "vae"):
        place = folder / "pipeline" / part
        weights = load_file(place / "diffusion_pytorch_model.safetensors")
        half = {n: t.half() for n, t in weights.items()}
        save_file(half, place / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
        torch.save(weights, place / "diffusion_pytorch_model.bin")
    text = load_file(folder / "pipeline" / "text_encoder" / "model.safetensors")
    single = {f"cond_stage_model.transformer.{n}": t for n, t in text.items()}
    single |= {"model.diffusion_model.x": torch.ones(3)}
    save_file({n: t.half() for n, t in single.items()}, folder / "pipeline" / "v1-5-pruned-emaonly.safetensors")
    original = load_file(folder / "open_clip" / "open_clip_model.safetensors")
    other = {n: t for n, t in original.items() if not n.startswith("visual.")}
    save_file({f"cond_stage_model.model.{n}": t for n, t in other.items()}, folder / "pipeline" / "v2.safetensors")
    return folder


def carries(tensors, family, edited):
    """Whether a state dict has the edited tensors, up to its own dtype."""
    there = canonical.all_views(family, {n: t for n, t in tensors.items() if t.ndim})
    return all(torch.allclose(there[n].float(), t, atol=0.02, rtol=0.02) for n, t in edited.items())


@pytest.mark.parametrize("layer", [TEXT, VISION])
def test_every_copy_of_a_clip_carries_the_edit(every_kind, tmp_path, layer):
    edited = make_delta(tmp_path / "a.delta.safetensors", every_kind / "hugging_face", layer)
    said = []
    out = deltas.apply(tmp_path / "a.delta.safetensors", every_kind / "clip", tmp_path / "out", say=said.append)

    model = open_clip.create_model(f"local-dir:{out}")
    assert carries(model.state_dict(), "open_clip_vit", edited)
    open_clip.load_checkpoint(model, str(out / "open_clip_pytorch_model.bin"))
    assert carries(model.state_dict(), "open_clip_vit", edited)
    ways = [{}, {"use_safetensors": False}, {"variant": "fp16"}, {"variant": "fp16", "use_safetensors": False}]
    for how in [*ways, {"variant": "bf16"}, {"variant": "parts"}]:
        loaded = transformers.CLIPModel.from_pretrained(out, dtype="auto", **how)
        assert carries(loaded.state_dict(), "hf", edited), how
    gone = {"flax_model.msgpack", "tf_model.h5", "model.onnx"}
    assert not any((out / n).exists() for n in gone)
    text, card = "\n".join(said), (out / cards.FILE).read_text()
    for line in (text, card):
        assert all(n in line for n in gone) and "model.fp16.safetensors" in line and "open_clip_pytorch_model.bin" in line
    for way in ("open_clip (open_clip_pytorch_model.bin)", "(the folder, default)", "(the folder, fp16 bin)", "parts"):
        assert way in text
    assert "could not be loaded" not in text and "seal the folder before you give it away" in text

    deltas.revert("a.delta.safetensors", out, out)
    for file in out.rglob("*"):
        if file.suffix in (".safetensors", ".bin"):
            before, after = (
                folders.weight_files.load(f / file.name, folders.weight_files.shapes(file))
                for f in (every_kind / "clip", out)
            )
            assert tiny.same_tensors(before, after), file


def test_every_copy_of_a_pipelines_encoder_carries_the_edit(every_kind, tmp_path):
    edited = make_delta(tmp_path / "a.delta.safetensors", every_kind / "hugging_face")
    said = []
    out = deltas.apply(tmp_path / "a.delta.safetensors", every_kind / "pipeline", tmp_path / "out", say=said.append)
    for how in ({}, {"variant": "fp16"}, {"use_safetensors": False}):
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(out, **how)
        assert carries(pipe.text_encoder.state_dict(), "diffusers", edited), how
    for file, prefix, family in (
        ("v1-5-pruned-emaonly.safetensors", "cond_stage_model.transformer.", "diffusers"),
        ("v2.safetensors", "cond_stage_model.model.", "open_clip_vit"),
    ):
        held = load_file(out / file)
        assert carries({n.removeprefix(prefix): t for n, t in held.items() if n.startswith(prefix)}, family, edited)
    text = "\n".join(said)
    for way in ("default", "fp16", "default bin"):
        assert f"diffusers (text_encoder, {way})" in text and f"transformers (text_encoder, {way})" in text
    deltas.revert("a.delta.safetensors", out, tmp_path / "back")
    for file in ("v2.safetensors", "text_encoder/model.bf16.safetensors"):
        assert tiny.same_tensors(load_file(tmp_path / "back" / file), load_file(every_kind / "pipeline" / file))


def tensors_of(folder):
    """All tensors in the files of a folder: (file, name, tensor)."""
    for file in folder.rglob("*"):
        if file.suffix in (".safetensors", ".bin"):
            held = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
            yield from ((file, n, t) for n, t in held.items())


def check_sealed(out, original):
    """Nothing in the folder is an original tensor, in any layout or precision, or lets one compute it."""
    assert not list(out.rglob("slug_edits")) and not list(out.rglob("*.delta.safetensors"))
    for file, name, tensor in tensors_of(out):
        for view in (tensor, tensor.T) if tensor.ndim == 2 else (tensor,):
            assert view.shape != original.shape or (view.float() - original).abs().max() > 0.01, (file, name)
    for file in (f for f in out.rglob("*") if f.is_file()):
        content = file.read_bytes()
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for view in (original, original.T):
                raw = view.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()
                assert raw not in content and raw[: len(raw) // 4] not in content, file


@pytest.mark.parametrize("how", ["apply", "seal", "in place"])
@pytest.mark.parametrize("kind", ["clip", "pipeline"])
def test_a_sealed_folder_holds_nothing_of_the_original(every_kind, tmp_path, kind, how):
    source, path, out = every_kind / kind, tmp_path / "a.delta.safetensors", tmp_path / "out"
    original = load_file(every_kind / "hugging_face" / "model.safetensors")[TEXT]
    make_delta(path, every_kind / "hugging_face")
    if how == "apply":
        deltas.apply(path, source, out, seal=True)
    else:
        edited = deltas.apply(path, source, tmp_path / "edited")
        with pytest.raises(AssertionError):
            check_sealed(edited, original)
        shutil.copyfile(path, edited / "mine.delta.safetensors")
        if how == "in place":
            with pytest.raises(SlugError, match=r"mine\.delta\.safetensors .*would be deleted"):
                deltas.seal(edited, edited)
            (edited / "mine.delta.safetensors").unlink()
        out = deltas.seal(edited, edited if how == "in place" else out)
    check_sealed(out, original)
    card = (out / cards.FILE).read_text()
    assert "This folder is sealed" in card and "without Frog" in card and "revert --delta" not in card
    with pytest.raises(SlugError, match="none, or the folder is sealed"):
        deltas.revert(path, out, tmp_path / "back")
    with pytest.raises(SlugError, match="nothing to seal"):
        deltas.seal(out, tmp_path / "again")


def test_the_storage_of_a_pickle_carries_no_original(tiny_clip, tmp_path):
    """Tensors of a pickle may be views of one storage, which is written whole."""
    source = tmp_path / "m"
    shutil.copytree(tiny_clip / "hugging_face", source)
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    fused = torch.cat([weights[TEXT], weights[TEXT.replace("0.mlp", "1.mlp")]])
    weights[TEXT], weights[TEXT.replace("0.mlp", "1.mlp")] = fused.chunk(2)
    torch.save(weights, source / "pytorch_model.bin")
    make_delta(tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face")
    check_sealed(deltas.apply(tmp_path / "a.delta.safetensors", source, tmp_path / "out", seal=True), fused.chunk(2)[0])


def test_a_folder_edited_by_an_earlier_version_reverts_and_is_completed(every_kind, tmp_path):
    """It kept the originals of one file under their names alone, and left the other copies as they were."""
    path, source = tmp_path / "a.delta.safetensors", every_kind / "hugging_face"
    edited = make_delta(path, source)
    old = tmp_path / "old"
    shutil.copytree(source, old)
    weights = load_file(source / "model.safetensors")
    torch.save(weights, old / "pytorch_model.bin")
    (old / "slug_edits").mkdir()
    save_file({TEXT: weights[TEXT]}, old / "slug_edits" / "base.safetensors")
    tensors, header = deltas.read(path)
    save_file(tensors, old / "slug_edits" / path.name, metadata={k: v for k, v in header.items() if k != "content"})
    save_file(weights | edited, old / "model.safetensors", metadata={"format": "pt"})

    check_sealed(deltas.seal(old, tmp_path / "sealed"), weights[TEXT])
    back = deltas.revert(path, old, tmp_path / "back")
    assert (back / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not (back / "slug_edits").exists()


@pytest.mark.parametrize("what", ["fine-tuned", "cast", "one value", "another tensor"])
def test_a_folder_changed_after_its_edit_is_refused(tiny_clip, tmp_path, what):
    path = tmp_path / "a.delta.safetensors"
    make_delta(path, tiny_clip / "hugging_face")
    edited = deltas.apply(path, tiny_clip / "hugging_face", tmp_path / "edited")
    weights = load_file(edited / "model.safetensors")
    if what == "fine-tuned":
        weights = {n: t + 0.01 for n, t in weights.items()}
    elif what == "cast":
        weights = {n: t.half() for n, t in weights.items()}
    else:
        weights[TEXT if what == "one value" else VISION][0, 0] += 1
    said = "not in the edited tensors" if what == "another tensor" else TEXT
    save_file(weights, edited / "model.safetensors")
    before = edits.contents(edited)
    for run in (lambda: deltas.revert(path, edited, edited), lambda: deltas.seal(edited, tmp_path / "out")):
        with pytest.raises(SlugError, match=f"was changed after it was edited .*{said}"):
            run()
    assert edits.contents(edited) == before and not (tmp_path / "out").exists()


def test_kept_originals_are_held_against_the_delta(tiny_clip, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    make_delta(path, tiny_clip / "hugging_face")
    edited = deltas.apply(path, tiny_clip / "hugging_face", tmp_path / "edited")
    kept = edited / "slug_edits" / "base.safetensors"
    save_file({n: t * 1.5 for n, t in load_file(kept).items()}, kept)
    with pytest.raises(SlugError, match="made for other weights"):
        deltas.revert(path, edited, tmp_path / "back")


def test_copies_of_other_weights_are_refused(every_kind, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    make_delta(path, every_kind / "hugging_face")
    shutil.copytree(every_kind / "pipeline", tmp_path / "m")
    file = tmp_path / "m" / "v1-5-pruned-emaonly.safetensors"
    weights = load_file(file)
    save_file({n: t * 1.01 for n, t in weights.items()}, file)
    with pytest.raises(SlugError, match=r"v1-5-pruned-emaonly\.safetensors .* holds other weights"):
        deltas.apply(path, tmp_path / "m", tmp_path / "out")
    save_file({n.replace("cond_stage_model", "mine"): t for n, t in weights.items()}, file)
    with pytest.raises(SlugError, match=r"v1-5.* holds a copy of what the delta edits under the name mine\."):
        deltas.apply(path, tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists() and tiny.left_over(tmp_path) == []


class Opened:
    """A pickle of it runs code when it is read."""

    def __reduce__(self):
        return (eval, ("open('opened', 'w')",))


@pytest.mark.parametrize("content", [{"state_dict": {"x": torch.ones(2)}}, {"x": torch.ones(2), "epoch": 3}, Opened(), [1]])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "last.ckpt", "ViT-B-32.pt"])
def test_a_checkpoint_of_more_than_tensors_is_one_line(tiny_clip, tmp_path, monkeypatch, file, content):
    monkeypatch.chdir(tmp_path)
    make_delta(tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face")
    shutil.copytree(tiny_clip / "hugging_face", tmp_path / "m")
    torch.save(content, tmp_path / "m" / file)
    with pytest.raises(SlugError, match="save its tensors alone as safetensors, or take it out of the model folder"):
        deltas.apply(tmp_path / "a.delta.safetensors", tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "opened").exists() and not (tmp_path / "out").exists()


def two_encoders(folder, clip, seed=None):
    """A pipeline with text_encoder_2: the same weights again, or those of another seed. Returns its second CLIP."""
    other = clip
    if seed is not None:
        tiny.write_random_clip(folder / "other", seed=seed)
        other = folder / "other" / "hugging_face"
        tiny.write_pipeline(folder / "pipeline-2", other)
    tiny.write_pipeline(folder / "m", clip)
    second = folder / ("m" if seed is None else "pipeline-2") / "text_encoder"
    shutil.copytree(second, folder / "m" / "text_encoder_2")
    index = json.loads((folder / "m" / "model_index.json").read_text())
    index["text_encoder_2"] = ["transformers", "CLIPTextModel"]
    (folder / "m" / "model_index.json").write_text(json.dumps(index))
    return other


def test_each_delta_edits_the_encoder_that_it_was_made_for(tiny_clip, tmp_path, capsys):
    clip = tiny_clip / "hugging_face"
    other = two_encoders(tmp_path, clip, seed=1)
    wanted = {}
    for name, source in (("text_encoder", clip), ("text_encoder_2", other)):
        wanted[name] = make_delta(tmp_path / f"{name}.delta.safetensors", source)
    paths = [tmp_path / f"{name}.delta.safetensors" for name in wanted]
    for path in paths:
        with pytest.raises(
            SlugError, match=r"would still know Frog: give --delta one for each text encoder, or say --partial"
        ):
            deltas.apply(path, tmp_path / "m", tmp_path / "out")
    out = deltas.apply(paths, tmp_path / "m", tmp_path / "out")
    for name, edited in wanted.items():
        assert carries(load_file(out / name / "model.safetensors"), "diffusers", edited)
    assert "partly" not in (out / cards.FILE).read_text()

    partial = tmp_path / "partial"
    tiny.run("a2_unlearn_slug", "apply", "--delta", paths[1], "--model-dir", tmp_path / "m", "--out", partial, "--partial")
    for text in ((partial / cards.FILE).read_text(), capsys.readouterr().out):
        assert "NOT edited: text_encoder, which still knows Frog" in text
    assert "partly without Frog" in (partial / cards.FILE).read_text()
    first = "text_encoder/model.safetensors"
    assert (partial / first).read_bytes() == (tmp_path / "m" / first).read_bytes()
    deltas.apply(paths[0], partial, partial)  # now both know it no more
    assert tiny.same_tensors(load_file(partial / first), load_file(out / first))
    assert "partly" not in (partial / cards.FILE).read_text()


def test_one_delta_edits_two_encoders_of_the_same_weights(tiny_clip, tmp_path):
    two_encoders(tmp_path, tiny_clip / "hugging_face")
    edited = make_delta(tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face")
    out = deltas.apply(tmp_path / "a.delta.safetensors", tmp_path / "m", tmp_path / "out")
    for name in ("text_encoder", "text_encoder_2"):
        assert carries(load_file(out / name / "model.safetensors"), "diffusers", edited)


@pytest.mark.parametrize("kept", ["pytorch_model.bin", "model.fp16.safetensors", "model.safetensors.index.parts.json"])
def test_folders_of_one_kind_of_file_are_edited(every_kind, tmp_path, kept):
    """Pickles, 16 bits or shards alone; the deltas are made for what these files hold."""
    source = tmp_path / "m"
    shutil.copytree(every_kind / "hugging_face", source)
    (source / "model.safetensors").unlink()
    for path in (every_kind / "clip").glob("model.parts-*" if "parts" in kept else kept):
        shutil.copyfile(path, source / path.name)
    shutil.copyfile(every_kind / "clip" / kept, source / kept)
    base = tmp_path / "base"
    shutil.copytree(every_kind / "hugging_face", base)
    if kept == "model.fp16.safetensors":
        shutil.copyfile(source / kept, base / "model.safetensors")
    edited = make_delta(tmp_path / "a.delta.safetensors", base)
    out = deltas.apply(tmp_path / "a.delta.safetensors", source, tmp_path / "out")
    held = {n: t for file, n, t in tensors_of(out) if n == TEXT and file.parent == out}
    assert carries(held, "hf", edited)
    back = deltas.revert("a.delta.safetensors", out, tmp_path / "back")
    assert all(
        tiny.same_tensors({n: t}, {n: u}) for (_, n, t), (_, _, u) in zip(tensors_of(back), tensors_of(source), strict=True)
    )


def test_a_delta_made_in_16_bits_fits_the_model_that_was_rounded(tiny_clip, tmp_path):
    clip = tiny.load_folder(tiny_clip / "hugging_face")
    clip.module.bfloat16()
    path = tmp_path / "a.delta.safetensors"
    deltas.save(path, clip, {TEXT: torch.ones(128, 32)}, name="x", layer=TEXT, step=1.0, metrics={})
    out = deltas.apply(path, tiny_clip / "hugging_face", tmp_path / "out")
    base, now = (load_file(f / "model.safetensors")[TEXT] for f in (tiny_clip / "hugging_face", out))
    assert torch.equal(now, base + 1)


@pytest.mark.parametrize("inside", ["edited", "a/b"])
def test_an_out_that_cannot_be_used_is_one_line(tiny_clip, tmp_path, inside):
    make_delta(tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face")
    source = tmp_path / "m"
    shutil.copytree(tiny_clip / "hugging_face", source)
    before = edits.contents(tmp_path)
    (tmp_path / "link").symlink_to(source)
    for out, said in ((source / inside, "lies inside"), (tmp_path / "link" / inside, "lies inside")):
        with pytest.raises(SlugError, match=said):
            deltas.apply(tmp_path / "a.delta.safetensors", source, out)
    with pytest.raises(SlugError, match="is a file"):
        deltas.apply(tmp_path / "a.delta.safetensors", source, tmp_path / "a.delta.safetensors")
    assert edits.contents(tmp_path) == before


def test_links_are_followed_and_blobs_are_left_alone(tiny_clip, tmp_path):
    """A folder given by a link is edited itself; a snapshot of the hub's cache, whose files are links, is copied whole."""
    path, blobs, snapshot = tmp_path / "a.delta.safetensors", tmp_path / "blobs", tmp_path / "snapshots" / "0"
    make_delta(path, tiny_clip / "hugging_face")
    shutil.copytree(tiny_clip / "hugging_face", blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    (tmp_path / "link").symlink_to(snapshot)
    before = edits.contents(blobs)
    out = deltas.apply(path, snapshot, tmp_path / "out")
    assert not any(p.is_symlink() for p in out.rglob("*"))
    assert deltas.apply(path, tmp_path / "link", tmp_path / "link") == snapshot
    assert (tmp_path / "link").is_symlink() and edits.contents(snapshot) == edits.contents(out)
    assert edits.contents(blobs) == before


def test_a_read_only_folder_can_be_edited_elsewhere(tiny_clip, tmp_path):
    make_delta(tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face")
    source = tmp_path / "m"
    shutil.copytree(tiny_clip / "hugging_face", source)
    for path in (*source.iterdir(), source):
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = deltas.apply(tmp_path / "a.delta.safetensors", source, tmp_path / "out")
    assert out.stat().st_mode & 0o200 and (out / "model.safetensors").stat().st_mode & 0o200
    source.chmod(0o755)


@pytest.mark.parametrize("place", ["_class_name", "unet", "text_encoder"])
def test_code_of_a_pipeline_is_not_run(tiny_clip, tmp_path, place):
    """diffusers runs modules of a folder of this machine without asking."""
    make_delta(tmp_path / "a.delta.safetensors", tiny_clip / "hugging_face")
    tiny.write_pipeline(tmp_path / "m", tiny_clip / "hugging_face")
    index = json.loads((tmp_path / "m" / "model_index.json").read_text())
    index[place] = ["mine", "Mine"]
    (tmp_path / "m" / "model_index.json").write_text(json.dumps(index))
    for folder in (tmp_path / "m", tmp_path / "m" / "unet", tmp_path / "m" / "text_encoder"):
        (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    said = []
    deltas.apply(tmp_path / "a.delta.safetensors", tmp_path / "m", tmp_path / "out", say=said.append)
    assert not (tmp_path / "ran").exists()
    assert any("could not be loaded for a check" in line and "code of its own" in line for line in said)


def test_a_delta_of_the_unet_is_refused_with_the_way_out(tiny_pipeline, tmp_path):
    model, path, source = tiny.load_pipeline(tiny_pipeline), tmp_path / "a.delta.safetensors", tiny_pipeline / "pipeline"
    name = next(n for n in model.parameters if n.startswith(canonical.UNET))
    change = torch.ones_like(model.parameters[name])
    deltas.save(path, model, {name: change}, name="Noto", layer="weight 0.1", step=1.0, metrics={})
    for out in (tmp_path / "out", tmp_path / "sealed"):
        with pytest.raises(SlugError, match=r"edits the UNet.*pipe\.save_pretrained") as err:
            deltas.apply(path, source, out, seal=out.name == "sealed")
        assert "\n" not in str(err.value) and not out.exists()
    # What the line says works.
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(source, safety_checker=None)
    for tensor, delta in deltas.read(path)[0].items():
        pipe.unet.get_parameter(tensor.removeprefix(canonical.UNET)).data += delta
    pipe.save_pretrained(tmp_path / "out")
    edited = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")[name.removeprefix(canonical.UNET)]
    assert torch.equal(edited, model.parameters[name].cpu() + change)
