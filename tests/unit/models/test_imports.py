"""What imports torchvision, directly or not, is imported after slug.torchvision_cpu."""

import ast

import pytest

from slug import files

PACKAGES = {"diffusers", "open_clip", "peft", "timm", "torchvision", "transformers"}


def heavy(body):
    """Lines on which statements of one function, or of a module's top, import PACKAGES, and those that import the remedy."""
    found, remedy = [], []
    for node in body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [node.lineno for n in names if n.split(".")[0] in PACKAGES]
        remedy += [node.lineno for n in names if n == "slug.torchvision_cpu"]
    return found, remedy


@pytest.mark.parametrize("path", sorted((files.ROOT / "src/slug").rglob("*.py")), ids=lambda p: p.stem)
def test_an_import_of_torchvision_comes_after_its_remedy(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    _, above = heavy(tree.body)
    bodies = [tree.body, *(n.body for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))]
    for body in bodies:
        found, remedy = heavy(body)
        assert all(any(r < line for r in [*remedy, *above]) for line in found), f"{path}, lines {found}"
