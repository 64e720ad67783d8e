"""a2_unlearn_slug.py on folders: list the deltas of an edited one, and write a delta as an adapter."""

import os
import shutil
import signal
import subprocess
import sys

import edits
import pytest
import tiny

from slug import files
from slug.artifacts import deltas


def test_list_names_the_deltas_of_a_folder(tiny_clip, tmp_path, capsys):
    paths = [tmp_path / f"{name}.delta.safetensors" for name in "ab"]
    for layer, path in enumerate(paths):
        edits.make(tiny_clip, path, layer=layer)
    edited = deltas.apply(paths, tiny_clip / "open_clip", tmp_path / "edited")
    tiny.run("a2_unlearn_slug", "list", "--model-dir", edited)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [p.name for p in paths]


def test_adapter_writes_a_folder_and_says_its_ranks(tiny_clip, tmp_path, capsys):
    path = tmp_path / "a.delta.safetensors"
    edits.make(tiny_clip, path, "hugging_face", 0)
    tiny.run("a2_unlearn_slug", "adapter", "--delta", path, "--out", tmp_path / "adapter", "--residual", 0)
    assert (tmp_path / "adapter/adapter_config.json").is_file()
    assert "self_attn.k_proj rank 32, 0.0% left out" in capsys.readouterr().out


def test_adapter_refuses_a_folder_of_something_else_in_one_line(tiny_clip, tmp_path, monkeypatch, capfd):
    path, kept = tmp_path / "a.delta.safetensors", tmp_path / "mine" / "notes.txt"
    edits.make(tiny_clip, path, "hugging_face", 0)
    kept.parent.mkdir()
    kept.write_text("years of work")
    given = ["adapter", "--delta", path, "--out", kept.parent]
    assert "holds no adapter" in tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *given)
    assert "holds no adapter" in tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *given[:-1], kept)
    assert kept.read_text() == "years of work"


def test_seal_and_apply_seal_write_the_same_folder(tiny_clip, tmp_path, capsys):
    path, source = tmp_path / "a.delta.safetensors", tiny_clip / "open_clip"
    edits.make(tiny_clip, path)
    tiny.run("a2_unlearn_slug", "apply", "--delta", path, "--model-dir", source, "--out", tmp_path / "e")
    said = capsys.readouterr().out
    assert "edited: open_clip_model.safetensors" in said and "keeps the original tensors for a revert" in said
    tiny.run("a2_unlearn_slug", "seal", "--model-dir", tmp_path / "e", "--out", tmp_path / "sealed")
    given = ["--delta", path, "--model-dir", source, "--out", tmp_path / "at-once"]
    tiny.run("a2_unlearn_slug", "apply", "--seal", *given)
    assert "keeps the original" not in capsys.readouterr().out
    assert edits.contents(tmp_path / "sealed") == edits.contents(tmp_path / "at-once")
    tiny.run("a2_unlearn_slug", "list", "--model-dir", tmp_path / "sealed")
    assert capsys.readouterr().out == ""


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import tiny
from slug import files
kind, real = sys.argv.pop(1), os.rename
def rename(*given, **how):
    if kind == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*given, **how)
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename
tiny.run("a2_unlearn_slug", *sys.argv[1:])
"""


@pytest.mark.parametrize("kind", ["before", "between"])  # the two renames that put the edited folder in its place
def test_apply_in_place_goes_on_after_a_kill(tiny_clip, tmp_path, kind):
    path, model = tmp_path / "a.delta.safetensors", tmp_path / "m"
    edits.make(tiny_clip, path)
    shutil.copytree(tiny_clip / "open_clip", model)
    original, given = edits.contents(model), ["apply", "--delta", path, "--model-dir", model, "--out", model]
    env = os.environ | {"PYTHONPATH": str(tiny.ROOT / "src")}
    run = [sys.executable, "-c", KILLED, tiny.ROOT / "tests", kind, *given]
    assert subprocess.run(list(map(str, run)), env=env, check=False).returncode == -signal.SIGKILL
    assert tiny.left_over(tmp_path) and model.exists() == (kind == "before")
    files.remove_killed.cache_clear()  # as in a new process
    tiny.run("a2_unlearn_slug", *given)
    assert tiny.left_over(tmp_path) == [] and list(deltas.of_folder(model)) == [path.name]
    tiny.run("a2_unlearn_slug", "revert", *given[1:])
    assert edits.contents(model) == original
