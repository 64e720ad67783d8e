#!/usr/bin/env python
"""Builds the site of README and docs/ by MkDocs, with all pages and files that they link to; every link is checked.

Example: python scripts/tools/build_site.py --out build/site     needs mkdocs-material: pip install -e '.[docs]'
         python scripts/tools/build_site.py --check              only checks that each link leads to a file that is there
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from slug import cli, files
from slug.cli import flag
from slug.errors import SlugError

START = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)


def links(text: str) -> list[str]:
    """The files that a Markdown text links to, without anchors and without addresses of other servers."""
    found = [unquote((a or b).partition("#")[0]) for a, b in LINK.findall(CODE.sub("", text))]
    return [link for link in dict.fromkeys(found) if link and not re.match(r"[a-z]+:", link)]


def pages(root: Path) -> tuple[list[Path], list[str]]:
    """(files of the site, relative to `root`; what is wrong): README and docs/, and all that they link to, in turn."""
    waiting = [root / name for name in START if (root / name).is_file()] + sorted((root / "docs").glob("*.md"))
    found: dict[Path, None] = {}
    wrong = []
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        for link in links(path.read_text(encoding="utf-8")) if path.suffix == ".md" else ():
            target = Path(os.path.normpath(path.parent / link))
            if target.is_dir() and (target / "README.md").is_file():
                target = target / "README.md"
            if root not in target.parents or not target.is_file():
                wrong.append(f"{path.relative_to(root)} links to {link}, which is no file of this repository")
            else:
                waiting.append(target)
    return sorted(p.relative_to(root) for p in found), sorted(wrong)


@dataclass(frozen=True)
class Settings:
    """Settings of this script."""

    out: str = flag("build/site", "folder to write the site to")
    check: bool = flag(False, "only check the links")


def main(argv: Sequence[str] | None = None) -> None:
    """Check the links, then build."""
    settings = cli.parse(__doc__, Settings, argv)
    found, wrong = pages(files.ROOT)
    if wrong:
        raise SlugError(f"{len(wrong)} links of the documents lead nowhere: {'; '.join(wrong)}")
    print(f"{len(found)} files, {sum(p.suffix == '.md' for p in found)} of them pages; every link leads to a file")
    if settings.check:
        return
    source = files.ROOT / "build" / "pages"  # as mkdocs.yml says
    shutil.rmtree(source, ignore_errors=True)
    for path in found:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.ROOT / path, source / path)
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(files.resolve(settings.out)),
    ]
    done = subprocess.run(
        command, cwd=files.ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, text=True, capture_output=True
    )
    if done.returncode:
        raise SlugError(f"MkDocs does not build the site: {done.stderr.strip()[-2000:]}")
    print(f"-> {files.resolve(settings.out)}/index.html")


if __name__ == "__main__":
    cli.exit_with(main)
