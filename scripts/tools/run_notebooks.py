#!/usr/bin/env python
"""Runs notebooks from a fresh kernel and says how long each took.

Example: python scripts/tools/run_notebooks.py 00_quickstart explore_results         needs setup.sh --notebooks
         python scripts/tools/run_notebooks.py --write 00_quickstart                 with their outputs, to commit
They read data/demo and results/demo; SLUG_DEMO, SLUG_NAME and SLUG_RESULTS name others.

Each notebook runs in a process of its own, which is ended with its kernel when the notebook's time is over. A notebook whose
kernel died or gave no answer in time is run once more, from a fresh kernel; a cell that fails is not.
"""

import argparse
import contextlib
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slug import cli, files
from slug.errors import SlugError, brief

FOLDER = files.ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
TRIES = 2
AGAIN = 75  # exit code of a process whose notebook may be run again (EX_TEMPFAIL)


class Limits(NamedTuple):
    """Seconds that a cell, and a notebook with the start and the end of its kernel, may take."""

    cell: int = 300
    notebook: int = 900


LIMITS = Limits()


def look_again(channel: Any, every: float = 1.0) -> None:
    """Have a client's channel look for a message again and again while it waits for one, `every` so many seconds.

    nbclient waits for a cell's reply on the socket on which it also sends the states of widgets. A reply that comes in while
    it sends wakes nobody (https://github.com/jupyter/nbclient/issues/312), and the client waits for an idle kernel.
    """
    once = channel.get_msg

    async def get_msg(timeout: float | None = None) -> Any:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return await once(timeout=max(0.0, min(every, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    raise

    channel.get_msg = get_msg


def run_here(path: Path, out: Path, seconds: int) -> None:
    """Run a notebook in this process with `seconds` for each cell, and write it with its outputs to `out`. A file beside it
    names the cell that runs. SlugError: a cell failed. SystemExit with AGAIN: the kernel died, or gave no answer."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    book = nbformat.read(path, as_version=4)

    def began(cell: Any, cell_index: int) -> None:
        if not cell_index:
            look_again(client.kc.shell_channel)
        out.with_suffix(".cell").write_text(f"cell {cell_index + 1} of {len(book.cells)}", encoding="utf-8")

    about: dict[str, Any] = {"resources": {"metadata": {"path": str(FOLDER)}}, "on_cell_start": began}
    client = NotebookClient(book, timeout=seconds, startup_timeout=seconds, **about)
    try:
        client.execute()
    except CellExecutionError as err:
        raise SlugError(f"{path.name}: a cell failed: {err.ename}: {brief(err.evalue)}") from err
    except Exception as err:  # the kernel died, did not start or gave no answer; what ends it may then fail in any way
        causes: list[BaseException] = [err]
        while before := causes[-1].__context__:
            causes.append(before)
        late = any(isinstance(cause, CellTimeoutError) for cause in causes)
        print(f"no answer within {seconds} s" if late else brief(err) or type(err).__name__, file=sys.stderr)
        sys.exit(AGAIN)
    out.write_text(nbformat.writes(book), encoding="utf-8")


def end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started: a kernel has a session of its own, and outlives a parent that is killed."""
    import psutil  # ipykernel needs it too, so it is there wherever a kernel is

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    process.kill()
    process.communicate()


def attempt(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """(exit code, last line that it said on stderr) of a command; AGAIN, where it is not done after `seconds`."""
    source = str(files.ROOT / "src")
    known = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{known}" if known else source}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        lines = process.communicate(timeout=seconds)[1].strip().splitlines()
    except subprocess.TimeoutExpired:
        end(process)
        return AGAIN, f"not done within {seconds:g} s"
    except BaseException:
        end(process)
        raise
    return process.returncode, lines[-1] if lines else f"exit code {process.returncode}"


def execute(path: Path, limits: Limits = LIMITS) -> Any:
    """A notebook with what its cells print in a fresh kernel. SlugError: a cell failed, or twice the kernel died or gave no
    answer in time."""
    import nbformat

    for number in range(1, TRIES + 1):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / path.name
            code, said = attempt(
                [sys.executable, __file__, "--here", str(out), str(path), str(limits.cell)], limits.notebook
            )
            if not code:
                return nbformat.read(out, as_version=4)
            if code == 2:
                raise SlugError(said.removeprefix("error: "))
            running = out.with_suffix(".cell")
            where = running.read_text(encoding="utf-8") if running.is_file() else "the start of its kernel"
            print(f"note: {path.name}, {where}, try {number} of {TRIES}: {said}", file=sys.stderr, flush=True)
    raise SlugError(f"{path.name} did not run to its end in {TRIES} tries; the last one stopped at {where}: {said}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the notebooks that are named, or all."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--here"]:  # a process of `execute`
        out, path, seconds = arguments[1:]
        run_here(Path(path), Path(out), int(seconds))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks, without their endings; without any, all")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebooks' files")
    parser.add_argument("--cell-seconds", type=int, default=LIMITS.cell, help="that a cell may take (%(default)s)")
    parser.add_argument("--seconds", type=int, default=LIMITS.notebook, help="that a notebook may take (%(default)s)")
    given = parser.parse_args(arguments)
    names = given.names or sorted(p.stem for p in FOLDER.glob("*.ipynb"))
    for name in names:
        path = files.existing(FOLDER / f"{name}.ipynb", "notebook", "give its name without the ending")
        began = time.monotonic()
        book = execute(path, Limits(given.cell_seconds, given.seconds))
        if given.write:
            write(book, path)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def write(book: Any, path: Path) -> None:
    """Write a notebook with its outputs, without what changes from run to run and what shows nothing without its kernel."""
    import nbformat

    for cell in book.cells:
        cell["metadata"].pop("execution", None)
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if WIDGET not in o.get("data", {})]
    book["metadata"].pop("widgets", None)
    files.write_text(path, nbformat.writes(book) + "\n")


if __name__ == "__main__":
    cli.exit_with(main)
