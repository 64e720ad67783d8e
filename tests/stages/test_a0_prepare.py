"""ImageNet and CelebA prepared by commands, and the check of all data."""

import pytest
import tiny

from demo import build_standin
from slug.data import evaluation_sets
from slug.errors import SlugError


@pytest.fixture
def archives(tmp_path):
    """Flags for both archives of three pictures."""
    build_standin.write_devkit(tmp_path / "devkit.tar.gz", {"n07753592": 2, "n07749582": 1}, [2, 1, 2])
    tiny.write_tar(tmp_path / "val.tar", {f"ILSVRC2012_val_{n:08d}.JPEG": tiny.jpeg(n) for n in (2, 1, 3)})
    flags = ["--tar", tmp_path / "val.tar", "--devkit", tmp_path / "devkit.tar.gz", "--imagenet-val", tmp_path / "val"]
    return [*flags, "--any-archive"]


def test_imagenet_is_unpacked_and_counted(archives, tmp_path, capfd):
    tiny.run("a0_prepare_imagenet", *archives)
    assert f"\n3 pictures of 2 classes -> {tmp_path / 'val'}" in "\n" + capfd.readouterr().out


def test_imagenet_that_is_unpacked_is_kept(archives, capfd):
    tiny.run("a0_prepare_imagenet", *archives)
    tiny.run("a0_prepare_imagenet", *archives)
    assert "kept: 3 pictures of 2 classes" in capfd.readouterr().out


def test_a_missing_archive_says_where_to_register(tmp_path, capfd, monkeypatch):
    assert "registration" in tiny.failure(monkeypatch, capfd, "a0_prepare_imagenet", "--tar", tmp_path / "nowhere.tar")


@pytest.fixture
def celeba(tmp_path, capsys):
    """A CelebA folder prepared with two frequent identities and two forget names; and what the stage said."""
    tiny.write_celeba(tmp_path, left_out=(1, 6, 7))  # on disk: Ann 4, Cy 4, Ed 4, Gil 3, Ivy 4, Kay 1
    tiny.run("a0_prepare_celeba", "--data-root", tmp_path, "--count", 2, "--name", "gil_ho", "Ann_Bo")
    return tmp_path, capsys.readouterr().out


def test_frequent_identities_and_forget_names_are_written(celeba):
    root, said = celeba
    assert (root / "frequent_celebs.txt").read_text() == "Ann_Bo\nCy_Do\nGil_Ho\n"
    assert "3 identities are shown, 3 to 4 pictures each" in said


def test_the_evaluation_shows_the_identities_chosen_among_all(celeba, tiny_clip):
    pictures = evaluation_sets.load_celeba(celeba[0], tiny.load(tiny_clip).transform)
    assert pictures.names == ["Ann Bo", "Cy Do", "Ed Fox", "Gil Ho", "Ivy Jo", "Kay Lo"] and pictures.broken == 3
    assert [pictures.labels.tolist().count(i) for i in range(6)] == [4, 4, 0, 3, 0, 0]


@pytest.fixture(scope="module")
def check():
    """scripts/check_data.py, as a function of its flags."""
    module = tiny.script("check_data")
    return lambda *flags: module.main([str(f) for f in flags])


def test_the_check_names_a_missing_forget_set_and_its_command(check, standin, capsys):
    check("--data-dir", standin, "--name", "Nobody Atall")
    said = capsys.readouterr().out
    assert "forget set Nobody_Atall" in said and "a0_create_tar.py --name Nobody_Atall" in said


def test_the_check_reports_only_what_is_asked_for(check, standin, capsys):
    check("--data-dir", standin, "--only", "celeba", "imagenet", "--strict")
    said = capsys.readouterr().out
    assert "CelebA" in said and "ImageNet val" in said and "LAION" not in said


def test_a_strict_check_fails_where_something_is_unusable(check, standin):
    with pytest.raises(SlugError, match="forget set Nobody_Atall cannot be used"):
        check("--data-dir", standin, "--only", "forget", "celeba", "--name", "Nobody_Atall", "--strict")
