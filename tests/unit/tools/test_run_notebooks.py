"""Notebooks that hang, die or fail: each ends in time, with one line that says where."""

import asyncio
import importlib.util
import json
import queue
import sys
import time

import pytest
import tiny

from slug.errors import SlugError

notebooks = tiny.script("tools/run_notebooks")
JUPYTER = all(map(importlib.util.find_spec, ("nbclient", "ipykernel")))
needs_jupyter = pytest.mark.skipif(not JUPYTER, reason="no Jupyter here; bash scripts/setup.sh --notebooks")


def alive(pid):
    """Whether a process runs: one that has ended may still be listed, as a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path):
    # As a kernel does, the child has a session of its own.
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    code, said = notebooks.attempt([sys.executable, "-c", parent], 3)
    assert (code, said) == (notebooks.AGAIN, "not done within 3 s")
    pid = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("", (0, "exit code 0")),
        ("import sys; print('a', file=sys.stderr); sys.exit('b')", (1, "b")),
        ("import os; os.kill(os.getpid(), 9)", (-9, "exit code -9")),
    ],
)
def test_a_command_that_ends_gives_its_code_and_its_last_line(code, found):
    assert notebooks.attempt([sys.executable, "-c", code], 30) == found


class Channel:
    """A channel on which a message lies, of which a client that waits is not told."""

    def __init__(self, looks):
        self.looks, self.waited = looks, []

    async def get_msg(self, timeout=None):
        self.waited.append(timeout)
        self.looks -= 1
        if self.looks:
            await asyncio.sleep(timeout)
            raise queue.Empty
        return "reply"


@pytest.mark.parametrize("timeout", [None, 30])
def test_a_reply_that_woke_nobody_is_found_at_the_next_look(timeout):
    channel = Channel(3)
    notebooks.look_again(channel, 0.01)
    assert asyncio.run(channel.get_msg(timeout=timeout)) == "reply" and channel.waited == [0.01] * 3


def test_a_reply_that_does_not_come_is_waited_for_as_long_as_was_asked():
    channel = Channel(10**6)
    notebooks.look_again(channel, 0.02)
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        asyncio.run(channel.get_msg(timeout=0.1))
    assert 0.1 <= time.monotonic() - began < 5 and max(channel.waited) == 0.02


class Nbformat:
    """Stands in for nbformat."""

    @staticmethod
    def read(path, as_version):
        return path.read_text()


@pytest.mark.parametrize(
    ("tries", "runs", "said"),
    [
        ([(0, "")], 1, None),
        ([(75, "Kernel died"), (0, "")], 2, None),
        ([(-9, "exit code -9"), (0, "")], 2, None),
        (
            [(75, "Kernel died"), (75, "not done within 9 s")],
            2,
            "did not run to its end in 2 tries; .* cell 1 of 2: not done",
        ),
        ([(2, "error: a.ipynb: a cell failed: x")], 1, "^a.ipynb: a cell failed: x$"),
    ],
    ids="well died killed twice failed".split(),
)
def test_a_notebook_is_tried_once_more_unless_a_cell_failed(tries, runs, said, tmp_path, monkeypatch):
    made = []

    def attempt(command, seconds):
        out = tmp_path.__class__(command[3])
        out.with_suffix(".cell").write_text("cell 1 of 2")
        out.write_text("done")
        made.append(seconds)
        return tries[len(made) - 1]

    monkeypatch.setattr(notebooks, "attempt", attempt)
    monkeypatch.setitem(sys.modules, "nbformat", Nbformat)
    if said is None:
        assert notebooks.execute(tmp_path / "a.ipynb", notebooks.Limits(3, 9)) == "done"
    else:
        with pytest.raises(SlugError, match=said):
            notebooks.execute(tmp_path / "a.ipynb", notebooks.Limits(3, 9))
    assert made == [9] * runs


def written(path, *cells):
    """A notebook of these cells."""
    rows = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": c}
        for i, c in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": rows, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


@needs_jupyter
@pytest.mark.parametrize(
    ("cell", "limits", "tries", "said"),
    [
        ("import os; os._exit(1)", (30, 90), 2, "cell 2 of 2: Kernel died"),
        ("import time; time.sleep(50)", (3, 90), 1, "cell . of 2: no answer within 3 s"),
        ("import time; time.sleep(50)", (50, 8), 1, ".*: not done within 8 s"),  # slow machines have begun no cell by then
    ],
    ids="dies cell-hangs notebook-hangs".split(),
)
def test_a_kernel_that_dies_or_hangs_is_said(cell, limits, tries, said, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(notebooks, "TRIES", tries)
    with pytest.raises(SlugError, match=f"in {tries} tries; the last one stopped at {said}"):
        notebooks.execute(written(tmp_path / "a.ipynb", "1", cell), notebooks.Limits(*limits))
    assert f"try 1 of {tries}" in capfd.readouterr().err


@needs_jupyter
def test_a_kernel_that_dies_once_is_started_anew(tmp_path):
    mark = f"pathlib.Path({str(tmp_path / 'x')!r})"
    once = f"import os, pathlib; p = {mark}\nif not p.exists(): p.touch(); os._exit(1)\nprint('ok')"
    book = notebooks.execute(written(tmp_path / "a.ipynb", once), notebooks.Limits(20, 60))
    assert book.cells[0].outputs[0]["text"] == "ok\n"


@needs_jupyter
def test_a_cell_that_fails_ends_the_run_at_once(tmp_path, capfd):
    with pytest.raises(SlugError, match=r"^a\.ipynb: a cell failed: ZeroDivisionError"):
        notebooks.execute(written(tmp_path / "a.ipynb", "1 / 0"), notebooks.Limits(20, 60))
    assert "try" not in capfd.readouterr().err
