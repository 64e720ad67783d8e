"""The check of every data set, on stand-ins of the downloads."""

import csv
import shutil
from pathlib import Path

import pytest
import tiny

from slug.data import canvas, checks, evaluation_sets

KEYS = ("laion", "retain", "forget", "celeba", "imagenet", "canvas", "classifiers")


def states(root):
    return {s.what: s for s in checks.states(root, KEYS)}


def test_stand_ins_of_imagenet_are_the_worlds_pictures_under_their_names(standin, named_world, tiny_clip):
    with (named_world / "ImageNet/classes.csv").open(newline="") as f:
        folders = {r["folder"]: r["name"] for r in csv.DictReader(f)}
    shows = {p.read_bytes(): folders[p.parent.name] for p in (named_world / "ImageNet/val").glob("*/*")}
    objects = evaluation_sets.load_imagenet(standin / "ImageNet/val", tiny.load(tiny_clip).transform)
    assert {objects.names[i] for i in objects.labels.tolist()} == {"banana", "lemon"}
    for path, label in zip(objects.paths, objects.labels.tolist(), strict=True):
        assert objects.names[label] == shows[Path(path).read_bytes()]


def test_stand_ins_of_celeba_are_the_worlds_pictures_under_their_names(standin, named_world, tiny_clip):
    faces = evaluation_sets.load_celeba(standin / "celeba", tiny.load(tiny_clip).transform)
    originals = evaluation_sets.celeba_names(named_world / "celeba")
    of = {(named_world / "celeba/img_align_celeba" / i).read_bytes(): n for i, n in originals.items()}
    assert {faces.names[label] for label in faces.labels.tolist()} == set(originals.values())
    for path, label in zip(faces.paths, faces.labels.tolist(), strict=True):
        assert faces.names[label] == of[Path(path).read_bytes()]


def test_what_is_missing_is_not_usable_and_has_something_to_do(tmp_path):
    for state in states(tmp_path / "data").values():
        assert not (state.found or state.complete or state.usable) and state.todo


def test_data_on_request_says_whom_to_ask(tmp_path):
    found = states(tmp_path / "data")
    assert "ask its authors" in found["CelebA"].todo and "register" in found["ImageNet val"].todo


def test_stand_ins_are_usable_and_complete_only_where_they_are(standin):
    found = states(standin)
    complete = {"LAION shards", "retain set", "CelebA", "UnlearnCanvas classifiers"}
    assert {n for n, s in found.items() if s.usable} == complete | {"ImageNet val", "UnlearnCanvas"}
    assert {n for n, s in found.items() if s.complete} == complete
    assert all(bool(s.todo) != s.complete for s in found.values())


@pytest.fixture
def root(standin, tmp_path):
    """A copy of the stand-ins, to be damaged."""
    shutil.copytree(standin, tmp_path / "data", ignore=shutil.ignore_patterns("models", "emoji"))
    return tmp_path / "data"


def test_a_shard_that_was_cut_is_incomplete(root):
    shard = sorted((root / "laion/laion400m").glob("*.tar"))[-1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert states(root)["LAION shards"].usable and not states(root)["LAION shards"].complete


def test_broken_pictures_make_celeba_unusable(root):
    for path in (root / "celeba/img_align_celeba").iterdir():
        path.write_bytes(b"no picture")
    found = states(root)["CelebA"]
    assert not found.usable and "none of the 16" in found.detail


def test_a_folder_that_is_no_class_makes_imagenet_unusable(root):
    (root / "ImageNet/val/strange").mkdir()
    found = states(root)["ImageNet val"]
    assert not found.usable and "strange" in found.detail


def test_a_missing_classifier_is_named(root):
    for path in (root / "UnlearnCanvas/classifiers").iterdir():
        path.unlink()
    (root / "UnlearnCanvas/classifiers/style.pth").write_bytes(b"weights")
    found = states(root)["UnlearnCanvas classifiers"]
    assert not found.usable and "no object weights" in found.detail


@pytest.fixture
def classifiers(tmp_path):
    """A folder with both weight files and nothing that describes them."""
    for kind in ("style", "object"):
        tiny.write_file(tmp_path / f"c/{kind}.pth", b"weights")
    return tmp_path / "c"


def state_of(classifiers):
    (found,) = checks.states(classifiers.parent, ["classifiers"], classifiers=str(classifiers))
    return found


def test_classifiers_without_a_description_are_the_published_ones(classifiers):
    found = state_of(classifiers)
    assert found.usable and "vit_large_patch16_224, 51 styles and 20 objects" in found.detail


@pytest.mark.parametrize("kind", ["style", "object"])
def test_classifiers_need_both_weight_files(classifiers, kind):
    (classifiers / f"{kind}.pth").unlink()
    assert not state_of(classifiers).usable


@pytest.mark.parametrize("text", ["{", "[]", '{"arch": "resnet10t"}'])
def test_a_damaged_description_makes_classifiers_unusable(classifiers, text):
    (classifiers / "classifiers.json").write_text(text)
    found = state_of(classifiers)
    assert not found.usable and "classifiers.json" in found.detail


def test_styles_without_an_output_of_the_classifier_are_named(tmp_path):
    """The published data set has more styles than its classifier."""
    known = canvas.classifier_settings(tmp_path)["labels"]["style"]
    for style in (known[0], known[1], "Seed_Images", "Unknown_Style"):
        tiny.write_file(tmp_path / f"UnlearnCanvas/data/{style}/Dogs/1.jpg", tiny.jpeg(1, size=16))
    (found,) = checks.states(tmp_path, ["canvas"])
    assert "1 styles that the classifier has no output for: Unknown_Style" in found.detail
    for style in (known[0], known[1], "Seed_Images"):
        (tmp_path / f"UnlearnCanvas/data/{style}").rename(tmp_path / f"UnlearnCanvas/data/Other_{style}")
    (found,) = checks.states(tmp_path, ["canvas"])
    assert found.usable and "no output" not in found.detail  # classifiers of other data


def test_published_names_of_classifiers_are_found(classifiers):
    (classifiers / "style.pth").rename(classifiers / "style50.pth")
    (classifiers / "object.pth").rename(classifiers / "style50_cls.pth")
    assert state_of(classifiers).detail.startswith("style50.pth, style50_cls.pth: ")
