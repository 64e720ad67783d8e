"""Notebooks: what they take from the package is there."""

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import tiny

from slug import files

NOTEBOOKS = sorted((files.ROOT / "notebooks").glob("*.ipynb"))


def code(path: Path) -> ast.Module:
    """A notebook's code, without the lines that are IPython's own."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "code").splitlines()
    return ast.parse("\n".join(line for line in lines if not line.startswith("%")))


def imported(tree: ast.Module) -> dict[str, object]:
    """{name: module or object} of what a notebook imports from the package."""
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "slug":
            for alias in node.names:
                try:
                    found[alias.name] = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    found[alias.name] = getattr(importlib.import_module(str(node.module)), alias.name)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_uses_only_what_the_package_has(path):
    tree = code(path)
    found = imported(tree)
    assert found
    used = {
        (n.value.id, n.attr)
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in found
    }
    assert [f"{module}.{name}" for module, name in sorted(used) if not hasattr(found[module], name)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_states_how_long_it_takes_in_its_first_cell(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    assert re.search(r"^Takes .*minute", first, re.M)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nbclient", "ipykernel", "ipywidgets"))),
    reason="no Jupyter here; bash scripts/setup.sh --notebooks",
)
@pytest.mark.parametrize("name", ["00_quickstart", "explore_results"])
def test_a_notebook_runs_from_a_fresh_kernel(name, tiny_world, tmp_path, monkeypatch):
    tars = tmp_path / "demo"
    tars.mkdir()
    for part in ("laion", "names.txt"):
        (tars / part).symlink_to(tiny_world / part)
    shards = [
        "--laion-dir",
        tars / "laion" / "laion400m",
        "--tar-dir",
        tars / "tar_files",
        "--image-dir",
        tmp_path / "looked",
    ]
    tiny.run("a0_create_tar", "--name", "Ant", *shards, "--result-dir", tmp_path / "results")
    monkeypatch.setenv("SLUG_DEMO", str(tars))
    monkeypatch.setenv("SLUG_NAME", "Ant")
    book = tiny.script("tools/run_notebooks").execute(files.ROOT / "notebooks" / f"{name}.ipynb")
    assert not [o for cell in book.cells for o in cell.get("outputs", ()) if o["output_type"] == "error"]
