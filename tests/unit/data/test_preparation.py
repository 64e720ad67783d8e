"""Official downloads brought into the layouts of slug.data: ImageNet's archives and CelebA's lists."""

import shutil

import pytest
import tiny

from demo import build_standin
from slug.data import preparation
from slug.data.pairs import TarMembers
from slug.errors import SlugError

# WordNet ids of things whose names need no list to look up, and devkit ids that neither count from 0 nor sort as they do.
IDS = {"n07753592": 3, "n07749582": 1, "n02129165": 4, "n04398044": 2}
NAMES = {"n07753592": "banana", "n07749582": "lemon", "n02129165": "lion", "n04398044": "teapot"}
TRUTH = [2, 4, 4, 1, 3, 2]  # of pictures 1 to 6
LABELS = ["teapot", "lion", "lion", "lemon", "banana", "teapot"]
TAR, DEVKIT = "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


# ------------------------------------------------------------------------------------------------------------ ImageNet


def write_pictures(folder, numbers):
    tiny.write_tar(folder / TAR, {f"ILSVRC2012_val_{n:08d}.JPEG": tiny.jpeg(n) for n in numbers})


@pytest.fixture
def archives(tmp_path):
    """A folder with both archives of six pictures, the members of the tar in no order."""
    build_standin.write_devkit(tmp_path / DEVKIT, IDS, TRUTH)
    write_pictures(tmp_path, (4, 1, 6, 2, 5, 3))
    return tmp_path


def unpack(folder):
    return preparation.unpack_imagenet(folder / TAR, folder / DEVKIT, folder / "val", checksum=False)


def unpacked(folder):
    """{number of a picture: the class name of its folder}."""
    return {int(p.stem[-8:]): NAMES[p.parent.name] for p in (folder / "val").glob("*/*")}


def test_devkit_ids_count_from_1_and_inner_nodes_are_no_classes(archives):
    assert [NAMES[w] for w in preparation.devkit_labels(archives / DEVKIT)] == LABELS


def test_pictures_go_where_the_devkit_says_by_their_number(archives):
    assert unpack(archives) == (6, 4, True)
    assert unpacked(archives) == dict(enumerate(LABELS, 1))
    assert (archives / "val/n07749582/ILSVRC2012_val_00000004.JPEG").read_bytes() == tiny.jpeg(4)
    assert tiny.left_over(archives) == []


def test_what_is_unpacked_is_left_alone(archives):
    unpack(archives)
    assert unpack(archives) == (6, 4, False)


def test_a_stopped_unpacking_goes_on(archives, monkeypatch):
    read, done = TarMembers.__getitem__, []

    def three(members, name):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return read(members, name)

    monkeypatch.setattr(TarMembers, "__getitem__", three)
    with pytest.raises(KeyboardInterrupt):
        unpack(archives)
    assert not (archives / "val").exists()
    written = []
    monkeypatch.setattr(TarMembers, "__getitem__", lambda members, name: written.append(name) or read(members, name))
    assert unpack(archives) == (6, 4, True) and len(written) == 3
    assert unpacked(archives) == dict(enumerate(LABELS, 1))


def test_archives_that_are_not_the_official_ones_are_refused(archives):
    with pytest.raises(SlugError, match="not the official archive"):
        preparation.unpack_imagenet(archives / TAR, archives / DEVKIT, archives / "val")


def cut_tar(folder):
    (folder / TAR).write_bytes((folder / TAR).read_bytes()[:3000])


def cut_devkit(folder):
    (folder / DEVKIT).write_bytes((folder / DEVKIT).read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_tar, "not a whole tar"),
        (lambda folder: write_pictures(folder, (1, 2, 4, 5, 6)), "5 of 6 pictures"),
        (lambda folder: write_pictures(folder, (7,)), "the devkit has no label"),
        (cut_devkit, "not ImageNet's devkit"),
        (lambda folder: build_standin.write_devkit(folder / DEVKIT, IDS, [*TRUTH, 9]), "not ImageNet's devkit"),
    ],
    ids=["cut tar", "missing picture", "picture too many", "cut devkit", "id without a class"],
)
def test_archives_that_will_not_do_are_refused(archives, spoil, said):
    spoil(archives)
    with pytest.raises(SlugError, match=said):
        unpack(archives)
    assert not (archives / "val").exists()


def test_an_incomplete_folder_is_not_taken_for_a_whole_one(archives):
    unpack(archives)
    next((archives / "val").glob("n02129165/*")).unlink()
    with pytest.raises(SlugError, match="lacks 1 of 6"):
        unpack(archives)


# -------------------------------------------------------------------------------------------------------------- CelebA


@pytest.fixture
def celeba(tmp_path):
    """A CelebA folder without the pictures 1, 6 and 7: on disk are Ann 4, Cy 4, Ed 4, Gil 3, Ivy 4, Kay 1."""
    tiny.write_celeba(tmp_path, left_out=(1, 6, 7))
    return tmp_path


def test_the_most_frequent_identities_are_chosen_and_ties_by_name(celeba):
    found = preparation.choose_identities(celeba, count=3)
    assert found.chosen == ["Ann Bo", "Cy Do", "Ed Fox"] and found.missing == 3


def test_an_identity_needs_four_pictures(celeba):
    assert preparation.choose_identities(celeba, count=9).chosen == ["Ann Bo", "Cy Do", "Ed Fox", "Ivy Jo"]


def test_forget_names_are_chosen_in_any_case(celeba):
    assert preparation.choose_identities(celeba, count=2, always=["gil_ho", "Ann_Bo"]).chosen == [
        "Ann Bo",
        "Cy Do",
        "Gil Ho",
    ]


def test_a_list_of_frequent_identities_that_has_them_all_is_kept(tmp_path):
    path = tmp_path / "frequent_celebs.txt"
    path.write_text("Cy_Do\nAnn_Bo\nGil_Ho\n")
    assert preparation.write_identities(tmp_path, ["Ann Bo", "Cy Do"]) == (path, False)
    assert path.read_text() == "Cy_Do\nAnn_Bo\nGil_Ho\n"


def test_a_list_of_frequent_identities_that_lacks_some_is_replaced_by_force_only(tmp_path):
    path = tmp_path / "frequent_celebs.txt"
    path.write_text("Cy_Do\nAnn_Bo\n")
    with pytest.raises(SlugError, match=r"lacks 1 identities, e\.g\. Ivy Jo"):
        preparation.write_identities(tmp_path, ["Ann Bo", "Ivy Jo"])
    preparation.write_identities(tmp_path, ["Ann Bo", "Ivy Jo"], force=True)
    assert path.read_text() == "Ann_Bo\nIvy_Jo\n"


def test_numbers_are_compared_with_names(tmp_path):
    tiny.write_celeba(tmp_path, numbers=[7] * 4 + [8] + [2] * 6 + [3] * 4 + [4] * 3 + [4] * 4 + [5])
    found = preparation.choose_identities(tmp_path)
    assert found.shared == ["Ann Bo"] and found.torn == ["4"]


@pytest.mark.parametrize(
    ("always", "said"),
    [("Ann_Bow", r"nobody .* is called 'Ann Bow'; similar names: Ann Bo"), ("Kay_Lo", "has 1 pictures of Kay Lo")],
)
def test_forget_names_that_cannot_be_evaluated_are_refused(celeba, always, said):
    with pytest.raises(SlugError, match=said):
        preparation.choose_identities(celeba, always=[always])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda good: good[:-20], "22 good rows of 22, 23 promised"),
        (lambda good: good.replace(b"Ann_Bo", b"Ann_B\xf6"), "not UTF-8"),
        # identity_CelebA.txt under the name of the other list
        (lambda good: b"000001.jpg 2880\n000002.jpg 12\n", "numbers instead of names"),
    ],
    ids=["cut", "latin-1", "numbers"],
)
def test_identity_lists_that_will_not_do_are_refused(celeba, change, said):
    path = celeba / "list_identity_celeba.txt"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SlugError, match=said):
        preparation.choose_identities(celeba)


@pytest.mark.parametrize(
    "change",
    [lambda good: good.partition(b"\n")[2], lambda good: b"\xef\xbb\xbf" + good.replace(b"\n", b"\r\n")],
    ids=["without a count", "from Windows"],
)
def test_other_forms_of_identity_lists_are_read(celeba, change):
    path = celeba / "list_identity_celeba.txt"
    path.write_bytes(change(path.read_bytes()))
    assert len(preparation.choose_identities(celeba).counts) == 6


def test_a_list_without_pictures_is_refused(celeba):
    shutil.rmtree(celeba / "img_align_celeba")
    with pytest.raises(SlugError, match=r"unpack img_align_celeba.zip"):
        preparation.choose_identities(celeba)
