"""Labelled sets in every layout that is read."""

import pytest
import tiny

from slug.data import labelled
from slug.errors import SlugError


@pytest.fixture(scope="module")
def transform(tiny_clip):
    return tiny.load(tiny_clip).transform


def benchmark(folder, classes=("a cat", "a dog"), numbers=(0, 1, 1), templates="a photo of {c}.\n"):
    """A data set in CLIP_benchmark's layout of webdatasets."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(classes) + "\n")
    if templates:
        (folder / "zeroshot_classification_templates.txt").write_text(templates)
    members = {f"s{i}.webp": tiny.jpeg(i, kind="WEBP") for i in range(len(numbers))}
    members |= {f"s{i}.cls": str(n).encode() for i, n in enumerate(numbers)}
    tiny.write_tar(folder / "test" / "0.tar", members)
    return str(folder)


def test_a_celeba_folder(tiny_world, transform):
    found = labelled.load(str(tiny_world / "celeba"), transform)
    assert "Alien" in found.pictures.names and not found.templates


def test_an_imagenet_folder_with_its_own_names(tiny_world, transform):
    assert len(labelled.load(str(tiny_world / "ImageNet" / "val"), transform).pictures.names) == 8


def test_an_imagenet_folder_of_wordnet_ids(tmp_path, transform):
    for n in ("n01440764", "n02085620"):
        tiny.write_file(tmp_path / "val" / n / "0.jpg", tiny.jpeg(1))
    found = labelled.load(str(tmp_path / "val"), transform).pictures
    assert len(found.names) == 998 and found.names[int(found.labels[0])] == "tench"


def test_a_folder_for_each_class(tmp_path, transform):
    for n, name in enumerate(("Great_Dane", "cat")):
        for i in range(2):
            tiny.write_file(tmp_path / "set" / name / f"{i}.JPG", tiny.jpeg(n + i))
    found = labelled.load(str(tmp_path / "set"), transform).pictures
    assert found.names == ["Great Dane", "cat"] and found.labels.tolist() == [0, 0, 1, 1]


def test_a_table(tmp_path, transform):
    for i in range(3):
        tiny.write_file(tmp_path / f"{i}.jpg", tiny.jpeg(i) if i else b"broken")
    (tmp_path / "t.csv").write_text("image,label\n0.jpg,dog\n1.jpg,cat\n2.jpg,dog\n")
    found = labelled.load(str(tmp_path / "t.csv"), transform).pictures
    assert found.names == ["cat", "dog"] and found.labels.tolist() == [0, 1] and found.broken == 1


def test_webdatasets_of_clip_benchmark_bring_their_prompts(tmp_path, transform):
    found = labelled.load(benchmark(tmp_path / "wds"), transform)
    assert found.pictures.names == ["a cat", "a dog"] and found.pictures.labels.tolist() == [0, 1, 1]
    assert found.templates == ("a photo of {}.",)
    assert labelled.load(benchmark(tmp_path / "plain", templates=""), transform).templates == ()


@pytest.mark.parametrize("case", ["nowhere", "empty", "files", "numbers"])
def test_what_is_no_labelled_set_is_said(case, tmp_path, transform):
    path = tmp_path / case
    if case != "nowhere":
        path.mkdir()
    if case == "files":
        tiny.write_file(path / "0.jpg", tiny.jpeg(0))
    if case == "numbers":
        path.rmdir()
        benchmark(path, numbers=(0, 7))
    said = {"nowhere": "not found", "numbers": "no picture with a class number"}.get(case, "no labelled evaluation set")
    with pytest.raises(SlugError, match=said):
        labelled.load(str(path), transform)
