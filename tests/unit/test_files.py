"""Reads and writes: whole or not at all, and one line where that fails."""

import os
import signal
import subprocess
import sys

import pytest
import tiny

from slug import files
from slug.errors import SlugError


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises((SlugError, KeyboardInterrupt, ValueError)), files.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    with pytest.raises(SlugError, match=r"cannot write .*a\.txt: No space left"), files.replacing(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    write = """
import os, sys
from slug import files
with files.replacing(sys.argv[1]) as temporary:
    temporary.write_text("split")
    os.kill(os.getpid(), 9)
"""
    env = os.environ | {"PYTHONPATH": str(tiny.ROOT / "src")}
    path, running = tmp_path / "a.txt", tmp_path / f".b.txt.{os.uname().nodename}.{os.getppid()}.part"
    running.write_text("split")
    run = [sys.executable, "-c", write, path]
    assert subprocess.run(run, env=env, check=False).returncode == -signal.SIGKILL
    assert len(tiny.left_over(tmp_path)) == 2 and not path.exists()
    files.write_text(tmp_path / "c.txt", "whole")
    assert tiny.left_over(tmp_path) == [running]


def test_a_folder_is_replaced_whole(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old.txt").write_text("old")
    with files.replacing_folder(tmp_path / "a") as folder:
        folder.mkdir()
        (folder / "new.txt").write_text("new")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["new.txt"] and tiny.left_over(tmp_path) == []


def test_a_folder_whose_making_fails_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(SlugError, match="cannot write"), files.replacing_folder(tmp_path / "a") as folder:
        folder.mkdir()
        raise OSError("no more")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlugError, match="cannot write"):
        files.check_writable(tmp_path / "file" / "below")


def test_a_relative_path_starts_at_the_repository_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.resolve("data/../src") == tiny.ROOT / "src" and files.resolve("/x") == files.Path("/x")


@pytest.mark.parametrize(
    ("text", "name"), [("Shaquille O'Neal", "Shaquille-O-Neal"), ("Beyoncé/2", "Beyoncé-2"), ("中.", "中.")]
)
def test_file_names_keep_letters_of_any_script(text, name):
    assert files.safe_name(text) == name


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff\xfe", "is not UTF-8 text"), (b"a\0b", "contains zero bytes"), (None, "cannot read")]
)
def test_text_that_cannot_be_read_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(SlugError, match=said):
        files.read_text(tmp_path / "a.txt")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa")
    assert files.read_text(tmp_path / "a.txt") == "a"


@pytest.mark.parametrize(("text", "said"), [("a,b\n1\n", "no a, b in row 2"), ("a,b\n", "no rows of a, b")])
def test_a_csv_with_a_short_row_or_none_is_refused(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SlugError, match=said):
        files.read_csv(tmp_path / "a.csv", ("a", "b"))


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "..", "", ".", "a\\b", "C:x", "a\0b", None, 3, ["x"]])
def test_only_a_plain_file_name_is_inside_a_folder(tmp_path, name):
    with pytest.raises(SlugError, match="which is no file name"):
        files.inside(tmp_path, name)
    assert files.inside(tmp_path, "model-00001-of-00002.safetensors").parent == tmp_path


def killed_while_replacing(path, function):
    """Replace the folder `path` in a process that is killed right after its first call of `function`, in module os."""
    write = f"""
import os, sys, signal
from slug import files
real = os.{function}
def last(*given, **how):
    real(*given, **how)
    os.kill(os.getpid(), signal.SIGKILL)
with files.replacing_folder(sys.argv[1]) as folder:
    folder.mkdir()
    (folder / "new.txt").write_text("new")
    os.{function} = last
"""
    env = os.environ | {"PYTHONPATH": str(tiny.ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", write, path], env=env, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("function", ["rename", "chmod"])  # between the renames, and while the old folder is removed
def test_a_folder_survives_a_kill_while_it_is_replaced(tmp_path, function):
    path = tmp_path / "a"
    path.mkdir()
    (path / "old.txt").write_text("old")
    killed_while_replacing(path, function)
    assert tiny.left_over(tmp_path)
    files.recover_folder(path)
    assert [p.name for p in path.iterdir()] == ["old.txt" if function == "rename" else "new.txt"]
    with files.replacing_folder(path) as folder:
        folder.mkdir()
    assert tiny.left_over(tmp_path) == []


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with files.replacing_folder(tmp_path / "link") as folder:
        folder.mkdir()
        (folder / "new.txt").write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a" / "new.txt").is_file()


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(SlugError, match="is a file"), files.replacing_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "mine" and tiny.left_over(tmp_path) == []


def test_read_only_folders_can_be_removed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_text("")
    for folder in ("a/b", "a"):
        (tmp_path / folder).chmod(0o555)
    files.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_one_process_at_a_time_is_alone_in_a_folder(tmp_path):
    """Also where the one before removes the folder, as a finished run does."""
    code = f"""
import shutil, sys, time
from pathlib import Path
from slug import files
place, log = Path({str(tmp_path / "work")!r}), Path({str(tmp_path / "log")!r})
with files.alone_in(place):
    with log.open("a") as f: f.write("in ")
    time.sleep(0.2)
    assert place.is_dir()
    with log.open("a") as f: f.write("out ")
    shutil.rmtree(place)
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [p.wait() for p in running] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "in out " * 3 and not (tmp_path / "work").exists()
