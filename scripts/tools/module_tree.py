#!/usr/bin/env python
"""Writes the tree of src/slug, one line for each module, into docs/architecture.md: the first sentence of its docstring.

Example: python scripts/tools/module_tree.py            fills the block between <!-- tree --> and <!-- /tree -->
         python scripts/tools/module_tree.py --check    ends with exit code 1 if the block is out of date
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def first_sentence(path: Path) -> str:
    """What a module says of itself, up to the first full stop."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[^.\s]{2})\.(?: |$)", text)[0]


def tree() -> str:
    """The modules, folder by folder; a package's own line is that of its __init__.py."""
    package, lines = ROOT / "src" / "slug", ["```"]
    for folder in (package, *sorted(p.parent for p in package.rglob("*/__init__.py"))):
        own = first_sentence(folder / "__init__.py")
        lines.append(f"{folder.relative_to(package.parent)}/".ljust(34) + own)
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"  {path.stem}".ljust(34) + first_sentence(path))
    return "\n".join(line.rstrip() for line in [*lines, "```"])


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = re.sub(r"(<!-- tree -->\n).*?(<!-- /tree -->)", lambda m: f"{m[1]}{tree()}\n{m[2]}", text, flags=re.S)
    if "--check" in sys.argv[1:]:
        sys.exit(f"{PAGE} is out of date; run python scripts/tools/module_tree.py" if made != text else 0)
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
