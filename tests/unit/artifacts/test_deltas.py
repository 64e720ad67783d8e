"""Deltas and edited folders: revert is exact, both formats agree, the wrong base is refused."""

import json

import edits
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slug import files
from slug.artifacts import deltas
from slug.core.edit import Edit
from slug.errors import SlugError

WEIGHTS = {"open_clip": "open_clip_model.safetensors", "hugging_face": "model.safetensors"}


@pytest.fixture(scope="module", params=[torch.float32, torch.float16], ids=["fp32", "fp16"])
def folder(request, tmp_path_factory):
    """Folder of a random CLIP in both formats."""
    out = tmp_path_factory.mktemp("base")
    tiny.write_random_clip(out, dtype=request.param)
    return out


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("layer", range(3))
def test_an_edited_folder_is_base_plus_step_times_gradient_and_reverts_to_the_bit(folder, tmp_path, family, layer):
    source, path = folder / family, tmp_path / "a.delta.safetensors"
    edit = edits.make(folder, path, family, layer)
    before = edits.contents(source)
    deltas.apply(path, source, tmp_path / "edited")
    base, edited = (load_file(f / WEIGHTS[family]) for f in (source, tmp_path / "edited"))
    assert base.keys() == edited.keys()
    for name, value in base.items():
        wanted = (value.float() + edit[name]).to(value.dtype) if name in edit else value
        assert edited[name].dtype == value.dtype and torch.equal(edited[name], wanted), name
        assert torch.equal(edited[name], value) == (name not in edit)
    assert edits.contents(source) == before

    deltas.revert(path, tmp_path / "edited", tmp_path / "reverted")
    assert edits.contents(tmp_path / "reverted") == before
    deltas.revert(path, tmp_path / "edited", tmp_path / "edited")  # in place
    assert edits.contents(tmp_path / "edited") == before
    assert tiny.left_over(tmp_path) == []


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_deltas_on_one_layer_come_out_in_either_order(folder, tmp_path, family, order):
    source, edited = folder / family, tmp_path / "edited"
    edits.make(folder, tmp_path / "a.delta.safetensors", family, 0, relative=0.3)
    # So large that adding and subtracting it would lose bits.
    edits.make(folder, tmp_path / "b.delta.safetensors", family, 0, relative=700.0)
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
    assert edits.contents(edited) == edits.contents(source)


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("made_for", tiny.FAMILIES)
def test_one_delta_gives_both_formats_the_same_features(folder, tmp_path, made_for, layer):
    path, batch = tmp_path / "a.delta.safetensors", tiny.pairs(6)
    edits.make(folder, path, made_for, layer)
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
        edit = edits.make(tiny_clip, tmp_path / f"{family}.delta.safetensors", family)
        with Edit(edit).applied(clip):
            wanted = tiny.features(clip, batch)
        deltas.apply(tmp_path / f"{family}.delta.safetensors", tiny_clip / family, tmp_path / family)
        found = tiny.features(tiny.load_folder(tmp_path / family), batch)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_delta_is_small_and_says_what_it_is(folder, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    for family in tiny.FAMILIES:
        for layer in range(3):
            edit = edits.make(folder, path, family, layer)
            in_fp16 = 2 * sum(t.numel() for t in edit.values())
            assert path.stat().st_size <= 2 * in_fp16 + 16_000
            with safe_open(path, "pt") as f:
                header = f.metadata()
                stored = sum(f.get_tensor(n).numel() for n in f.keys())  # noqa: SIM118
            assert stored == sum(t.numel() for t in edit.values())
            assert header["layer"] == edits.LAYERS[family][layer] and float(header["step"]) > 0
            assert json.loads(header["metrics"]) == {"forget_acc1": 0.025, "n_forget": 40, "split": "test"}


def test_a_delta_of_another_base_is_refused(folder, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    edits.make(folder, path)
    tiny.write_random_clip(tmp_path, seed=1)
    for family in tiny.FAMILIES:
        with pytest.raises(SlugError, match="made for other weights"):
            deltas.apply(path, tmp_path / family, tmp_path / "out")
        assert not (tmp_path / "out").exists() and tiny.left_over(tmp_path) == []


def test_a_delta_is_applied_once_and_only_what_is_applied_is_reverted(tiny_clip, tmp_path):
    path, source = tmp_path / "a.delta.safetensors", tiny_clip / "open_clip"
    edits.make(tiny_clip, path)
    deltas.apply(path, source, tmp_path / "edited")
    before = edits.contents(tmp_path / "edited")
    with pytest.raises(SlugError, match=r"applied to .* already"):
        deltas.apply(path, tmp_path / "edited", tmp_path / "edited")
    with pytest.raises(SlugError, match="is not applied"):
        deltas.revert("b.delta.safetensors", tmp_path / "edited", tmp_path / "edited")
    with pytest.raises(SlugError, match="is not empty"):
        deltas.apply(path, source, tmp_path / "edited")
    assert edits.contents(tmp_path / "edited") == before


def test_a_model_without_the_layer_is_refused(tiny_clip, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    clip = tiny.load(tiny_clip)
    deltas.save(path, clip, {"visual.proj": torch.ones(32, 24)}, name="x", layer="visual.proj", step=1, metrics={})
    tensors, header = deltas.read(path)
    with files.replacing(path) as temporary:
        renamed = {n.replace("visual_projection", "elsewhere"): t for n, t in tensors.items()}
        save_file(renamed, temporary, metadata=header | {"content": files.tensor_hash(renamed)})
    with pytest.raises(SlugError, match=r"has no tensor elsewhere.weight"):
        deltas.apply(path, tiny_clip / "open_clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_deltas_go_in_at_once_and_come_out_in_any_order(folder, tmp_path):
    """Same layer and others: what is left is as if the reverted one had never been there."""
    source, names = folder / "open_clip", ["a", "b", "c"]
    for name, layer, relative in zip(names, (0, 0, 1), (0.5, -0.3, 0.2), strict=True):
        edits.make(folder, tmp_path / f"{name}.delta.safetensors", layer=layer, relative=relative)
    paths = [tmp_path / f"{n}.delta.safetensors" for n in names]
    together = deltas.apply(paths, source, tmp_path / "together")
    assert list(deltas.of_folder(together)) == [p.name for p in paths]
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
        edits.make(tiny_clip, path, layer=layer)
    for given in (paths, paths[:1] * 2):
        with pytest.raises(SlugError, match=r"would both be kept as a\.delta\.safetensors"):
            deltas.apply(given, source, tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_a_delta_in_a_models_own_names_is_the_edit_it_was_made_of(folder, tmp_path):
    for family in ("open_clip", "hugging_face"):
        for layer in range(3):
            path = tmp_path / f"{family}-{layer}.delta.safetensors"
            edit = edits.make(folder, path, family, layer)
            clip = tiny.load(folder, family)
            found = deltas.native(clip, *deltas.read(path))
            assert found.keys() == edit.keys() and all(torch.equal(found[n], edit[n]) for n in edit)
    with torch.no_grad():
        clip.parameters[next(iter(edit))].add_(1)
    with pytest.raises(SlugError, match="made for other weights"):
        deltas.native(clip, *deltas.read(path))


@pytest.mark.parametrize("key, value", [("model", None), ("step", "one"), ("metrics", "{"), ("metrics", "[]")])
def test_a_damaged_header_is_one_line(tiny_clip, tmp_path, key, value):
    path = tmp_path / "a.delta.safetensors"
    edits.make(tiny_clip, path, "open_clip")
    with safe_open(path, "pt") as f:
        header = f.metadata()
    header = {k: v for k, v in (header | {key: value}).items() if v is not None}
    save_file(load_file(path), path, metadata=header)
    with pytest.raises(SlugError, match=r"damaged header.*make the delta again"):
        deltas.read(path)
