"""Delta files: what is written is what is read, and nothing else is."""

import json
import subprocess

import edits
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slug import files
from slug.artifacts import deltas
from slug.errors import SlugError


@pytest.fixture
def path(tiny_clip, tmp_path):
    """A delta of open_clip's visual.proj."""
    clip = tiny.load(tiny_clip)
    out = tmp_path / "a.delta.safetensors"
    edit = {"visual.proj": torch.linspace(-1, 1, 32 * 24).reshape(32, 24)}
    deltas.save(out, clip, edit, name="x", layer="visual.proj", step=1.0, metrics={"forget_acc1": 0.0})
    return out


def rewrite(path, change=lambda t: t, **more):
    """Write the delta with its tensors or its header changed; a value of None takes the key out."""
    with safe_open(path, "pt") as f:
        header = f.metadata() | more
    header = {k: v for k, v in header.items() if v is not None}
    save_file({n: change(t).contiguous() for n, t in load_file(path).items()}, path, metadata=header)


def test_every_committed_delta_can_be_read():
    found = subprocess.run(["git", "ls-files", "results/*.delta.safetensors"], cwd=tiny.ROOT, capture_output=True, text=True)
    for file in found.stdout.split():
        tensors, header = deltas.read(tiny.ROOT / file)
        assert tensors and header["layer"]


@pytest.mark.parametrize("at", [-1, -2, -1000])
def test_a_flipped_bit_is_refused(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SlugError, match="its tensors are not those that its header describes"):
        deltas.read(path)


def test_a_delta_of_an_earlier_version_has_no_hash(path):
    wanted = deltas.read(path)[0]
    rewrite(path, content=None)
    assert tiny.same_tensors(deltas.read(path)[0], wanted)
    rewrite(path, torch.Tensor.double)
    assert tiny.same_tensors(deltas.read(path)[0], wanted)


SHAPES = {
    "scalar": lambda t: t[0, 0],
    "one row": lambda t: t[0],
    "transposed": lambda t: t.T,
    "one column": lambda t: t[:, :1],
    "more": lambda t: torch.cat([t, t]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_of_another_shape_is_not_broadcast(path, tiny_clip, tmp_path, shape):
    rewrite(path, SHAPES[shape], content=None)
    for use in (
        lambda: deltas.apply(path, tiny_clip / "open_clip", tmp_path / "out"),
        lambda: deltas.apply(path, tiny_clip / "hugging_face", tmp_path / "out"),
        lambda: deltas.of_model(tiny.load(tiny_clip), path),
    ):
        with pytest.raises(SlugError, match="the model has another size"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_a_change_of_an_odd_dtype_is_refused(path, dtype):
    rewrite(path, lambda t: t.to(dtype), content=None)
    with pytest.raises(SlugError, match="a change must be floating-point"):
        deltas.read(path)


def test_an_empty_delta_is_refused(path, tiny_clip, tmp_path):
    _, header = deltas.read(path)
    save_file({}, path, metadata=header | {"base": files.tensor_hash({}), "content": files.tensor_hash({})})
    with pytest.raises(SlugError, match="changes nothing"):
        deltas.apply(path, tiny_clip / "open_clip", tmp_path / "out")


@pytest.mark.parametrize("value", [7e4, 1e300])
def test_an_edit_that_overflows_is_refused(tmp_path, value):
    tiny.write_random_clip(tmp_path, dtype=torch.float16)
    path = tmp_path / "a.delta.safetensors"
    edit = {"visual.proj": torch.full((32, 24), min(value, 3e38))}
    deltas.save(path, tiny.load(tmp_path), edit, name="x", layer="visual.proj", step=1.0, metrics={})
    if value > 1e38:  # a double that no float32 holds
        rewrite(path, lambda t: t.double() * value, content=None)
    with pytest.raises(SlugError, match=r"infinite in torch.float16; take a smaller step|holds NaN or infinity"):
        deltas.apply(path, tmp_path / "open_clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


HEADERS = {
    "step": ["nan", "inf", "-inf", "one", "", "1" + "0" * 400],
    "metrics": [
        '{"method": ["slug"]}',
        '{"chosen": 5}',
        '{"chosen": [["a", "b"]]}',
        '{"chosen": ["abc"]}',
        '{"chosen": [["a", NaN]]}',
        '{"together_with": [1]}',
        '{"together_with": "Owl"}',
        '{"forget_acc1": 1' + "0" * 400 + "}",
        '{"forget_acc1": 1' + "0" * 5000 + "}",
        '{"forget_acc1": "0.1"}',
        '{"n_forget": [1]}',
        '{"split": ["test"]}',
        '{"half": {}}',
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        "[]",
        "3",
        "null",
        "",
    ],
    "layer": ["a\nb", None],
    "name": ["a\n# b"],
    "model": ["x\0y", None],
    "base": [None],
}


@pytest.mark.parametrize(
    ("key", "value"), [(k, v) for k, values in HEADERS.items() for v in values], ids=lambda v: str(v)[:30]
)
def test_a_header_of_odd_values_is_one_line(path, key, value):
    rewrite(path, **{key: value})
    with pytest.raises(SlugError, match=r"damaged header.*make the delta again") as err:
        deltas.read(path)
    assert len(str(err.value)) < 600


def test_a_method_from_elsewhere_is_named(path, tiny_clip, tmp_path):
    rewrite(path, metrics=json.dumps({"method": "mine", "forget_acc1": float("nan"), "n_forget": None}))
    out = deltas.apply(path, tiny_clip / "open_clip", tmp_path / "out")
    assert "edited by the method mine." in (out / "README.md").read_text()


@pytest.mark.parametrize("wrong", ["model is of another kind", "other weights"])
def test_a_delta_of_a_model_is_held_against_it(path, tiny_clip, tmp_path, wrong):
    clip = tiny.load(tiny_clip)
    assert deltas.of_model(clip, path).keys() == {"visual.proj"}
    if wrong == "other weights":
        tiny.write_random_clip(tmp_path, seed=1)
        clip = tiny.load(tmp_path)
    else:
        tensors, header = deltas.read(path)
        save_file({"elsewhere": next(iter(tensors.values()))}, path, metadata=header | {"content": ""})
    with pytest.raises(SlugError, match=wrong):
        deltas.of_model(clip, path)


def test_an_edit_is_found_again(tiny_clip, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    edit = edits.make(tiny_clip, path)
    assert tiny.same_tensors(deltas.of_model(tiny.load(tiny_clip), path), {n: t.float() for n, t in edit.items()})
