"""What a user gets wrong ends with one line and exit code 2, and leaves nothing half-written."""

import io
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from slug.artifacts import deltas, gradient_files, weight_files
from slug.data.pairs import TarMembers

NAME = "Alien"


class Place:
    """A small set-up in which every stage would succeed, for a test to spoil."""

    def __init__(self, folder, world):
        self.folder, self.world, self.results = folder, world, folder / "results"
        self.model, self.hugging_face = folder / "open_clip", folder / "hugging_face"
        self.shards, self.tars, self.train = folder / "shards", folder / "tars", folder / "train.tar"

    def a0(self, *more):
        out = ["--tar-dir", self.tars, "--image-dir", self.folder / "pictures", "--result-dir", self.results]
        return ["a0_create_tar", "--name", NAME, "--laion-dir", self.shards, *out, "--force", *more]

    def gradients(self):
        data = ["--tar-dir", self.tars, "--train-data", self.train, "--model", f"local-dir:{self.model}"]
        return ["--celeb-name", NAME, *data, "--result-dir", self.results, "--workers", "0", "--device", "cpu"]

    def a1(self, *more):
        return ["a1_compute_grad", *self.gradients(), *more]

    def a2(self, *more):
        evaluation = ["--val-data", self.world / "celeba", "--imagenet-val", self.world / "ImageNet" / "val"]
        return ["a2_unlearn_slug", *self.gradients(), *evaluation, *more]

    def apply(self, *more):
        delta = self.folder / "a.delta.safetensors"
        return ["a2_unlearn_slug", "apply", "--delta", delta, "--model-dir", self.model, "--out", self.folder / "out", *more]

    def grads(self, part="forget_grads"):
        return self.results / "grads" / f"{NAME}_open_clip_local" / f"{part}.pt"

    def contents(self):
        """{path: content, or where a link leads} of every file but the decode cache's, which are whole or not there."""
        found = (p for p in self.folder.rglob("*") if (p.is_file() or p.is_symlink()) and p.parent.name != "cache")
        return {p: os.readlink(p) if p.is_symlink() else p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def sound(tiny_clip, tmp_path_factory):
    """A finished a0 and a1, and a delta."""
    folder = tmp_path_factory.mktemp("sound")
    shutil.copytree(tiny_clip, folder, dirs_exist_ok=True)
    place = Place(folder, None)
    tiny.write_shard(place.shards, 0, ["alien", "an alien icon", "a dog", "ALIEN", "cat"])
    tiny.write_pairs(place.train, ["a dog", "alien", "a cat", "tree"])
    tiny.run(*place.a0())
    tiny.run(*place.a1())
    clip = tiny.load(folder)
    edit = {"visual.proj": torch.ones_like(clip.parameters["visual.proj"])}
    deltas.save(folder / "a.delta.safetensors", clip, edit, name="a", layer="visual.proj", step=1.0, metrics={})
    return folder


@pytest.fixture
def place(sound, tiny_world, tmp_path):
    """A copy of `sound`."""
    shutil.copytree(sound, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place", tiny_world)


@pytest.fixture
def fails(place, monkeypatch, capfd):
    """Run a stage that must fail, and see that all files are as before; returns its line of error."""

    def check(stage, *arguments):
        before = place.contents()
        line = tiny.failure(monkeypatch, capfd, stage, *arguments)
        assert place.contents() == before
        assert tiny.left_over(place.folder) == []
        assert len(line) < 1000  # with the command that mends it, which names a test's long folders
        return line

    return check


def cut(path, keep=0.6):
    """Keep only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def spoil(path, name, value):
    """Put a value into a safetensors file."""
    weights = load_file(path)
    weights[name].view(-1)[0] = value
    save_file(weights, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def bomb():
    """A PNG of a hundred kB that would decode to 900 million pixels."""
    out = io.BytesIO()
    Image.new("1", (30000, 30000)).save(out, "PNG")
    return out.getvalue()


def with_member(tar, member, content):
    """Write a tar anew with another content of one member."""
    with TarMembers(tar) as found:
        members = {**found, member: content}
    tiny.write_tar(tar, members)


def test_an_image_bomb_is_a_broken_picture(place, bomb, capfd):
    with_member(place.train, "0.jpg", bomb)
    tiny.run(*place.a1())
    assert "1 broken" in capfd.readouterr().out


# --------------------------------------------------------------------------------------------------------- gradients


def test_a1_with_missing_files(place, fails):
    assert "forget set not found" in fails(*place.a1("--celeb-name", "Nobody_Atall"))
    assert "retain set not found" in fails(*place.a1("--train-data", place.folder / "nowhere.tar"))
    assert "model folder not found" in fails(*place.a1("--model", "local-dir:/nowhere/at/all"))
    assert "--tar-dir" in fails(*place.a1("--forget-data", place.train, "--celeb-name", "A", "B"))


@pytest.mark.parametrize("which", ["forget", "retain"])
def test_a1_with_a_tar_that_was_cut(place, fails, which):
    path = place.tars / f"{NAME}.tar" if which == "forget" else place.train
    cut(path)
    line = fails(*place.a1())
    assert "not a whole tar" in line and path.name in line


def test_a1_where_no_picture_can_be_used(place, fails):
    tiny.write_pairs(place.tars / f"{NAME}.tar", ["alien", "an alien"], broken=(0, 1))
    assert "no picture can be used (2 tried)" in fails(*place.a1())
    tiny.write_tar(place.tars / f"{NAME}.tar", {"a.txt": b"a caption alone"})
    assert "holds no pair" in fails(*place.a1())


def test_a1_where_nothing_is_left_to_retain(place, fails):
    tiny.write_pairs(place.train, ["one alien", "two ALIEN"])
    assert "every caption says Alien; give a retain set of other things" in fails(*place.a1())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_that_are_not_finite(place, fails, family, value):
    if family == "open_clip":
        spoil(place.model / "open_clip_model.safetensors", "visual.proj", value)
        lines = [fails(*place.a1()), fails(*place.a2())]
    else:
        spoil(place.hugging_face / "model.safetensors", "visual_projection.weight", value)
        lines = [fails(*place.a1("--clip-model-id", place.hugging_face))]
    assert all("NaN or infinity" in line and "proj" in line for line in lines)


@pytest.mark.parametrize("how", ["cut", "missing"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_that_are_damaged_or_not_there(place, fails, family, how):
    folder = place.model if family == "open_clip" else place.hugging_face
    path = next(folder.glob("*model.safetensors"))
    cut(path) if how == "cut" else path.unlink()
    model = ["--clip-model-id", folder] if family == "hugging_face" else []
    assert "cannot load" in fails(*place.a1(*model))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "ViT-B-33", "--pretrained", "random"], "has no model"),
        (["--model", "ViT-B-32"], "--pretrained is missing"),
        (["--model", "ViT-B-32", "--pretrained", "laion999"], "has no weights"),
        (["--clip-model-id", "/nowhere/at/all"], "cannot load"),
        (["--device", "cuda:77"], "cannot be used"),
        (["--device", "tpu"], "cannot be used"),
    ],
)
def test_models_and_devices_that_do_not_exist(place, fails, flags, said):
    assert said in fails(*place.a1(*flags))


@pytest.mark.parametrize("stage", ["a1", "a2"])
def test_a_result_folder_that_cannot_be(place, fails, stage):
    call = getattr(place, stage)()
    assert "cannot write" in fails(*call, "--result-dir", place.train / "below a file")
    assert "cannot write" in fails(*call, "--result-dir", place.train)


# -------------------------------------------------------------------------------------------------------------- a2


def test_a2_without_gradients(place, fails):
    shutil.rmtree(place.results / "grads")
    line = fails(*place.a2())
    assert "no gradients at" in line and "make them with: python src/clip/a1_compute_grad.py" in line
    assert f"--celeb-name {NAME}" in line


def test_a2_with_gradients_of_another_model(place, fails):
    tiny.write_random_clip(place.folder, seed=1)
    assert "stale (model differ" in fails(*place.a2())


def test_a2_with_gradients_of_another_forget_set(place, fails):
    tiny.write_pairs(place.tars / f"{NAME}.tar", ["alien", "another alien"])
    line = fails(*place.a2())
    assert "stale (data differ" in line and "forget_grads" in line


def test_a2_with_gradients_of_another_retain_set(place, fails):
    tiny.write_pairs(place.train, ["a dog", "a bird"])
    line = fails(*place.a2())
    assert "stale (data differ" in line and "train_grads" in line


def test_a2_with_other_options(place, fails):
    assert "stale (batch_size differ" in fails(*place.a2("--batch-size", "2"))
    assert "no gradients at" in fails(*place.a2("--unlearn-method", "slug_o"))
    assert "--step needs --layer" in fails(*place.a2("--step", "1"))
    assert "SLUG may not edit a layer" in fails(*place.a2("--layer", "visual.nothing"))
    assert "SLUG may not edit a layer" in fails(*place.a2("--layer", "logit_scale", "--step", "1"))


def test_a2_where_the_retain_gradient_holds_the_name(place, fails):
    retain = place.results / "grads" / "Alien_open_clip_local" / "train_grads.json"
    retain.write_text(json.dumps(json.loads(retain.read_text()) | {"left_out": ["somebody else"]}))
    assert "was computed on pairs that show Alien" in fails(*place.a2())


def test_a2_with_damaged_gradients(place, fails):
    good = place.grads().read_bytes()
    cut(place.grads(), 0.99)
    assert "damaged" in fails(*place.a2())
    place.grads().write_bytes(good)
    grads = torch.load(place.grads(), weights_only=True)
    grads["visual.proj"][0, 0] = torch.nan
    torch.save(grads, place.grads())
    assert "damaged" in fails(*place.a2())  # whatever it holds, it is not the file of the fingerprint
    gradient_files.save(place.grads(), grads, json.loads(place.grads().with_suffix(".json").read_text()))
    assert "NaN" in fails(*place.a2())
    place.grads().with_suffix(".json").write_text("{")
    assert "not valid JSON" in fails(*place.a2())


def test_a2_with_a_name_that_no_evaluation_has(place, fails):
    shutil.copy(place.tars / f"{NAME}.tar", place.tars / "Nobody_Atall.tar")
    call = place.a2("--celeb-name", "Nobody_Atall")
    tiny.run(*place.a1("--celeb-name", "Nobody_Atall"))
    assert "'Nobody Atall'" in fails(*call)


def test_a2_with_missing_evaluation_folders(place, fails):
    assert "CelebA folder not found" in fails(*place.a2("--val-data", place.folder / "nowhere"))
    assert "ImageNet validation folder not found" in fails(*place.a2("--imagenet-val", place.folder / "nowhere"))
    assert "there is no" in fails(*place.a2("--imagenet-val", place.folder))  # no class folders of ImageNet


def test_a2_with_damaged_evaluation_folders(place, fails):
    celeba = place.folder / "celeba"
    shutil.copytree(place.world / "celeba", celeba)
    call = place.a2("--val-data", celeba)
    lists = celeba / "list_identity_celeba.txt"
    text = lists.read_text()
    lists.write_text(text + "one two three\n")
    assert "not in CelebA's format" in fails(*call)
    lists.write_text(text)
    (celeba / "groups.csv").write_text("image,group,seen\n")
    assert "groups.csv has no row" in fails(*call)
    for path in (celeba / "img_align_celeba").iterdir():
        path.write_bytes(b"no picture")
    assert "no picture can be used" in fails(*call)


# ---------------------------------------------------------------------------------------------------- apply and revert


def test_apply_with_a_delta_that_is_none(place, fails):
    delta = place.folder / "a.delta.safetensors"
    assert "delta not found" in fails(*place.apply("--delta", place.folder / "nowhere"))
    weights = place.model / "open_clip_model.safetensors"
    assert "is not a SLUG delta" in fails(*place.apply("--delta", weights))
    tensors, header = deltas.read(delta)
    tensors["visual_projection.weight"][0, 0] = torch.nan
    save_file(tensors, delta, metadata=header)
    assert "NaN" in fails(*place.apply())


@pytest.mark.parametrize("keep", [0, 0.01, 0.9])
def test_apply_with_a_delta_that_was_cut(place, fails, keep):
    cut(place.folder / "a.delta.safetensors", keep)
    assert "not a whole safetensors file" in fails(*place.apply())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_apply_with_a_delta_of_another_model(place, fails, family):
    tiny.write_random_clip(place.folder, seed=1)
    line = fails(*place.apply("--model-dir", place.folder / family))
    assert "made for other weights (open_clip_local, visual.proj)" in line


def test_apply_to_a_folder_that_is_no_model(place, fails):
    assert "model folder not found" in fails(*place.apply("--model-dir", place.folder / "nowhere"))
    assert "is not a model folder" in fails(*place.apply("--model-dir", place.tars))
    cut(place.model / "open_clip_model.safetensors")
    assert "not a whole safetensors file" in fails(*place.apply())
    (place.model / "open_clip_model.safetensors").unlink()
    assert fails(*place.apply())


def test_apply_into_a_place_that_cannot_be(place, fails):
    assert "is not empty" in fails(*place.apply("--out", place.tars))
    assert "cannot write" in fails(*place.apply("--out", place.train / "below a file"))


def test_a_failure_while_a_folder_is_written_leaves_the_old_one(place, fails, monkeypatch):
    def full(*a, **k):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files, "save_file", full)
    assert "No space left" in fails(*place.apply("--out", place.model))


def small_files():
    """No file of the process can grow beyond 2 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.mark.parametrize("stage", ["a0", "a1", "a2", "apply"])
def test_a_full_disk(place, stage):
    """What a stage meets where space runs out in the middle of a file."""
    name, *arguments = getattr(place, stage)(*(["--force"] if stage in ("a1", "a2") else []))
    before = place.contents()
    command = [sys.executable, tiny.ROOT / "src" / "clip" / f"{name}.py", *map(str, arguments)]
    done = subprocess.run(command, preexec_fn=small_files, capture_output=True, text=True)
    (line,) = [line for line in done.stderr.replace("\r", "\n").splitlines() if "rror" in line]
    assert done.returncode == 2 and line.startswith("error: cannot write") and "space" in line, done.stderr[-2000:]
    assert place.contents() == before and tiny.left_over(place.folder) == []


def test_revert_of_what_is_not_applied(place, fails):
    call = ["a2_unlearn_slug", "revert", "--delta", "b.delta.safetensors", "--out", place.folder / "out", "--model-dir"]
    assert "is not applied" in fails(*call, place.model)
    tiny.run(*place.apply())
    assert "applied deltas: a.delta.safetensors" in fails(*call, place.folder / "out")


# -------------------------------------------------------------------------------------------------- ---------- report


def test_a4_without_records(place, fails):
    assert "no records in" in fails("a4_report", "--result-dir", place.results)


# ------------------------------------------------------------------------------------------------------ what is no name


STAGES_WITH_NAMES = {
    "a0_create_tar": "--name",
    "a0_prepare_celeba": "--name",
    "a0_create_prompts_uncanvas": "--names",
    "a0_create_tar_ucanvas": "--style",
    "a1_compute_grad": "--celeb-name",
    "a2_unlearn_slug": "--celeb-name",
    "a5_unlearn_multi": "--celeb-name",
    "a7_lasting": "--celeb-name",
    "b0_generate_forget_set": "--object",
    "b2_unlearn_sd": "--style",
    "c1_unlearn_vlm": "--celeb-name",
}


@pytest.mark.parametrize("stage", STAGES_WITH_NAMES)
@pytest.mark.parametrize("name", ["", ".", "~", "???"])
def test_what_has_no_letter_is_refused_before_anything_is_read(monkeypatch, capfd, stage, name):
    line = tiny.failure(monkeypatch, capfd, stage, f"{STAGES_WITH_NAMES[stage]}={name}")
    assert f"{name!r} is no name" in line
