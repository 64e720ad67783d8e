"""Evaluation sets in the layouts of CelebA and ImageNet."""

import shutil
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


# -------------------------------------------------------------------------------------- what is there besides, and what not


JUNK = (".DS_Store", "._1.jpg", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/1.jpg", "@eaDir/1.jpg", "__MACOSX/._1.jpg")


@pytest.fixture
def world(tiny_world, tmp_path):
    """A copy of the tiny world's evaluation, which has groups.csv and classes.csv."""
    for part in ("celeba", "ImageNet"):
        shutil.copytree(tiny_world / part, tmp_path / part)
    return tmp_path


def load(world, transform, **how):
    """Both picture sets of a world."""
    objects = evaluation_sets.load_imagenet(world / "ImageNet" / "val", transform, **how)
    return evaluation_sets.load_celeba(world / "celeba", transform, **how), objects


@pytest.mark.parametrize("grouped", [True, False])
def test_files_of_systems_are_no_pictures(world, transform, capsys, grouped):
    val = world / "ImageNet" / "val"
    if not grouped:
        (world / "ImageNet" / "groups.csv").unlink()
    before = load(world, transform)
    for folder in (world / "celeba" / "img_align_celeba", val, next(p for p in val.iterdir() if p.is_dir())):
        for name in JUNK:
            tiny.write_file(folder / name, b"\0\5\x16\7")
    for old, new in zip(before, load(world, transform), strict=True):
        assert torch.equal(old.images, new.images) and old.groups == new.groups and new.broken == 0
        assert new.left_out == {"missing": 0, "damaged": 0}
    assert not capsys.readouterr().out


def test_pictures_in_subfolders_count_and_other_files_are_told(val, transform, capsys):
    tiny.write_file(val / "n07753592" / "more" / "2.JPEG", tiny.jpeg(9))
    tiny.write_file(val / "n07753592" / "1.xml", b"<annotation/>")
    pictures = evaluation_sets.load_imagenet(val, transform)
    assert [pictures.names[i] for i in pictures.labels].count("banana") == 2 and pictures.broken == 0
    assert "left out: 1 ending .xml" in capsys.readouterr().out


def test_a_folder_that_the_classes_do_not_name_is_told(world, transform, capsys):
    tiny.write_file(world / "ImageNet" / "val" / "of_mine" / "1.jpg", tiny.jpeg(0))
    load(world, transform)
    assert "left out: 1 folders that classes.csv does not name" in capsys.readouterr().out


def test_a_picture_without_a_group_is_named_and_nothing_tells_to_delete_the_groups(world, transform):
    folder = next(p for p in (world / "ImageNet" / "val").iterdir() if p.is_dir())
    tiny.write_file(folder / "mine.jpg", tiny.jpeg(0))
    with pytest.raises(SlugError, match=rf"has no row for {folder.name}/mine.jpg: .* add the rows") as caught:
        load(world, transform)
    assert "delete" not in str(caught.value)


def lose(world, *, every):
    """Remove every n-th identity picture, and cut every n-th object picture; returns their numbers."""
    gone = sorted((world / "celeba" / "img_align_celeba").iterdir())[::every]
    for path in gone:
        path.unlink()
    cut = sorted(p for p in (world / "ImageNet" / "val").rglob("*") if p.is_file())[::every]
    for path in cut:
        path.write_bytes(path.read_bytes()[:100])
    return len(gone), len(cut)


def test_missing_and_damaged_pictures_are_told_and_counted(world, transform, capsys):
    gone, cut = lose(world, every=3)
    faces, objects = load(world, transform)
    assert faces.left_out == {"missing": gone, "damaged": 0} and objects.left_out == {"missing": 0, "damaged": cut}
    assert faces.broken == gone and objects.broken == cut
    said = capsys.readouterr().out
    assert (
        f"({gone} missing), e.g. " in said
        and f"{cut} of 100 pictures of the evaluation cannot be used ({cut} damaged)" in said
    )


def test_objects_that_the_groups_name_are_missed(world, transform):
    path = next(p for p in sorted((world / "ImageNet" / "val").rglob("*")) if p.is_file())
    path.unlink()
    assert load(world, transform)[1].left_out == {"missing": 1, "damaged": 0}


@pytest.mark.parametrize("part", [0, 1])
def test_more_than_the_share_that_may_be_missing_is_refused(world, transform, part):
    lose(world, every=5)
    loader, place = ((evaluation_sets.load_celeba, "celeba"), (evaluation_sets.load_imagenet, "ImageNet/val"))[part]
    with pytest.raises(SlugError, match=r"get them again, or accept figures without them by --allow-missing 0\.2"):
        loader(world / place, transform, allow_missing=0.01)
    loader(world / place, transform, allow_missing=0.21)


def test_a_class_without_a_name_is_refused(world):
    table = world / "ImageNet" / "classes.csv"
    rows = table.read_text().splitlines()
    folder, _, block = rows[1].split(",")
    table.write_text("\n".join([rows[0], f"{folder},??,{block}", *rows[2:]]) + "\n")
    with pytest.raises(SlugError, match=f"no name for the folder '{folder}'"):
        evaluation_sets.imagenet_classes(world / "ImageNet" / "val")
