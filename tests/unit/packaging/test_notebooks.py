"""Notebooks: what they take from the package is there."""

import ast
import importlib
import json
from pathlib import Path

import pytest

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
