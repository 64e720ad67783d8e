"""Evaluation sets in the layouts of CelebA and ImageNet."""

from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before open_clip and timm)

import pytest
import tiny
import torch
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo

from slug.data import evaluation_sets
from slug.errors import SlugError
from slug.evaluation import zeroshot

# WordNet ids of things whose names need no list to look up.
NAMES = {"n07753592": "banana", "n07749582": "lemon", "n02129165": "lion", "n04398044": "teapot"}


@pytest.fixture
def transform(tiny_clip):
    return tiny.load(tiny_clip).transform


@pytest.fixture
def celeba(tmp_path):
    """A CelebA folder of four pictures, two of one person."""
    (tmp_path / "img_align_celeba").mkdir()
    for i in range(4):
        (tmp_path / "img_align_celeba" / f"{i}.jpg").write_bytes(tiny.jpeg(i))
    people = [f"{i}.jpg {p}" for i, p in enumerate(["Ann_Bo", "Cy_Do", "Ann_Bo", "Ed_Fox"])]
    (tmp_path / "list_identity_celeba.txt").write_text("\n".join(["4", "image_id identity_name", *people]) + "\n")
    (tmp_path / "frequent_celebs.txt").write_text("Ann_Bo\nEd_Fox\n")
    return tmp_path


def test_celeba_shows_frequent_identities_among_all_names(celeba, transform):
    found = evaluation_sets.load_celeba(celeba, transform)
    assert found.names == ["Ann Bo", "Cy Do", "Ed Fox"] and found.labels.tolist() == [0, 0, 2]


def test_without_a_groups_file_each_picture_is_a_seen_group_of_its_own(celeba, transform):
    found = evaluation_sets.load_celeba(celeba, transform)
    assert len(set(found.groups)) == 3 and found.seen.all()


def test_pictures_of_an_identity_are_limited(celeba, transform):
    assert evaluation_sets.load_celeba(celeba, transform, per_class=1).labels.tolist() == [0, 2]


def test_imagenet_share_is_drawn_by_seed(tiny_world, transform):
    val = tiny_world / "ImageNet" / "val"
    whole = evaluation_sets.load_imagenet(val, transform)
    some, again, other = (evaluation_sets.load_imagenet(val, transform, share=0.3, seed=s) for s in (0, 0, 1))
    assert len(whole.labels) == 100 and len(some.labels) == 30
    assert torch.equal(some.images, again.images) and some.groups == again.groups and some.groups != other.groups
    assert some.names == whole.names


def test_class_names_stand_in_the_order_of_the_wordnet_ids():
    names, lemmas = evaluation_sets.imagenet_names(), ImageNetInfo("imagenet-1k").label_descriptions(as_dict=True)
    assert list(names) == sorted(names) and list(names.values()) == list(IMAGENET_CLASSNAMES)
    assert {w: names[w] for w in NAMES} == NAMES
    # open_clip mended many names; where it kept one of WordNet's, that must be the id's own.
    same = [w for w, n in names.items() if n.casefold() in lemmas[w].casefold().split(", ")]
    assert len(same) > 600


@pytest.fixture
def val(tmp_path):
    """An ImageNet folder of four pictures in four class folders, named by their class."""
    for n, (wnid, name) in enumerate(NAMES.items()):
        tiny.write_file(tmp_path / "val" / wnid / f"{name}.JPEG", tiny.jpeg(n))
    return tmp_path / "val"


def test_pictures_in_wordnet_folders_are_of_the_class_of_their_folder(val, transform):
    pictures = evaluation_sets.load_imagenet(val, transform)
    shown = {Path(p).stem: pictures.names[label] for p, label in zip(pictures.paths, pictures.labels, strict=True)}
    assert shown == {name: name for name in NAMES.values()}


def test_all_classes_of_imagenet_count_in_one_block(val, transform):
    pictures = evaluation_sets.load_imagenet(val, transform)
    assert len(pictures.names) == len(set(pictures.names)) == 998 and not pictures.blocks.any()


def test_synsets_of_one_name_are_one_class(tmp_path, transform):
    for n, wnid in enumerate(("n04355933", "n04356056", "n07753592")):  # sunglass, sunglasses, banana
        tiny.write_file(tmp_path / "val" / wnid / "1.JPEG", tiny.jpeg(n))
    pictures = evaluation_sets.load_imagenet(tmp_path / "val", transform)
    assert [pictures.names[i] for i in pictures.labels] == ["sunglasses", "sunglasses", "banana"]
    # As separate classes with the same prompts, each would tie with the other and be wrong.
    weights = torch.eye(len(pictures.names))
    rank = zeroshot.ranks(weights[pictures.labels], weights, pictures.labels, pictures.blocks)
    assert rank.tolist() == [0, 0, 0]


def test_a_folder_that_is_no_class_is_named(val):
    (val / "bananas").mkdir()
    with pytest.raises(SlugError, match="folder bananas, which is no WordNet id"):
        evaluation_sets.imagenet_classes(val)
