#!/usr/bin/env python
"""Runs notebooks from a fresh kernel and says how long each took.

Example: python scripts/tools/run_notebooks.py 00_quickstart explore_results         needs setup.sh --notebooks
         python scripts/tools/run_notebooks.py --write 00_quickstart                 with their outputs, to commit
They read data/demo and results/demo; SLUG_DEMO, SLUG_NAME and SLUG_RESULTS name others.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slug import cli, files
from slug.errors import SlugError

FOLDER = files.ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path, *, seconds: int = 600) -> Any:
    """A notebook with what its cells print in a fresh kernel. SlugError: a cell failed."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    book = nbformat.read(path, as_version=4)
    source = str(files.ROOT / "src")
    os.environ["PYTHONPATH"] = f"{source}:{os.environ['PYTHONPATH']}" if "PYTHONPATH" in os.environ else source
    client = NotebookClient(book, timeout=seconds, resources={"metadata": {"path": str(FOLDER)}})
    try:
        client.execute()
    except CellExecutionError as err:
        raise SlugError(f"{path.name}: a cell failed: {str(err).strip().splitlines()[-1]}") from err
    return book


def main(argv: Sequence[str] | None = None) -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks, without their endings; without any, all")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebooks' files")
    given = parser.parse_args(argv)
    names = given.names or sorted(p.stem for p in FOLDER.glob("*.ipynb"))
    for name in names:
        path = files.existing(FOLDER / f"{name}.ipynb", "notebook", "give its name without the ending")
        began = time.monotonic()
        book = execute(path)
        if given.write:
            import nbformat

            for cell in book.cells:
                cell["metadata"].pop("execution", None)
                if "outputs" in cell:  # a slider shows nothing without its kernel
                    cell["outputs"] = [o for o in cell["outputs"] if WIDGET not in o.get("data", {})]
            book["metadata"].pop("widgets", None)
            files.write_text(path, nbformat.writes(book) + "\n")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    cli.exit_with(main)
