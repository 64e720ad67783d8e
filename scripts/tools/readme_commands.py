#!/usr/bin/env python
"""Prints the commands of README and docs/ in order, those in bash blocks and those named in sentences and tables.

Example: python scripts/tools/readme_commands.py
         python scripts/tools/readme_commands.py --chapter "Real data" --follow results/standin-clone
Each line has the chapter's title, a tab and the command. With --follow it runs the commands of a chapter's blocks in another
copy of the repository and writes them and their output to --record.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slug import cli, files
from slug.cli import flag
from slug.errors import SlugError

START = re.compile(
    r"(?:[A-Z_]+=(?:\"[^\"]*\"|'[^']*'|\S+) )*(?:bash|python) (?:scripts|src)/\S+|python -m zipfile |git |cd |slug [a-z]+"
)
SHOWN = 60  # lines of a command's output, at most
HEAD = """# The chapter on real data, followed on stand-ins

This page shows what the commands of the chapter on real data (docs/reproduce.md) print. `scripts/run_standin.sh` ran them,
unchanged and in order, in a bare copy of this repository whose `data/` held only what a user would have downloaded. The
downloads are stand-ins with the same names and formats, made from the demo's emoji (`src/demo/build_standin.py`), and the
model is mini-CLIP. The run shows that commands, file formats and stages fit together; its numbers say nothing about the
paper's experiment. [The glossary](../../docs/glossary.md) spells out abbreviations.
"""


def documents():
    """README and the pages of docs/."""
    return [files.ROOT / "README.md", *sorted((files.ROOT / "docs").glob("*.md"))]


def commands(text):
    """[(chapter, command, whether it is in a block)] of a Markdown text."""
    found = []
    for part in re.split(r"^## ", text, flags=re.M):
        title, _, body = part.partition("\n")
        blocks = re.findall(r"```bash\n(.*?)```", body, re.S)
        lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
        prose = re.sub(r"```.*?```", "", body, flags=re.S)
        spans = [re.sub(r"\s+", " ", s) for s in re.findall(r"`([^`]+)`", prose)]
        found += [(title, " ".join(line.split()), True) for line in lines if START.match(line)]
        found += [(title, span, False) for span in spans if START.match(span)]
    return found


def said(output, clone):
    """A command's output for readers: no progress bars, no paths of this machine, not too long."""
    output = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output)  # colours, and the cursor moves of progress bars
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in output.splitlines()]
    lines = [line for line in lines if line and not re.search(r"\d+%\||\d+(?:it|[a-z]+)? \[\d\d:\d\d", line)]
    lines = [line.replace(f"{clone}/", "").replace(str(clone), ".").replace(sys.executable, "python") for line in lines]
    if len(lines) > SHOWN:
        lines = [*lines[: SHOWN // 3], f"... ({len(lines) - SHOWN} lines)", *lines[-2 * SHOWN // 3 :]]
    return "\n".join(lines)


def follow(chosen, clone, record):
    """Run commands in `clone` and write them and their output to `record`. SlugError if one fails, after writing."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}
    env |= {"SLUG_PYTHON": sys.executable, "DRY_RUN": "", "PYTHONUNBUFFERED": "1"}
    variables = shlex.split(os.environ.get("STANDIN_VARIABLES", ""))
    env |= dict(v.partition("=")[::2] for v in variables)
    text = [HEAD, "Variables that a stand-in needs:\n", "```", *variables, "```", ""]
    failed = None
    for command in chosen:
        text += ["```console", f"$ {command}"]
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        shown = said(done.stdout, clone)
        print(shown, flush=True)
        text += [*([shown] if shown else []), "```", ""]
        if done.returncode:
            failed = command
            text += [f"It ended with exit code {done.returncode}.", ""]
            break
    files.write_text(record, "\n".join(text).rstrip() + "\n")
    if failed:
        raise SlugError(f"a command failed on the stand-ins: {failed}; what it said is in {record}")


@dataclass(frozen=True)
class Settings:
    chapter: str = flag("", "only the commands of this chapter")
    follow: str = flag("", "copy of the repository to run them in")
    record: str = flag("results/standin/README.md", "file to which --follow writes the commands and their output")


def main(argv: Sequence[str] | None = None) -> None:
    settings = cli.parse(__doc__, Settings, argv)
    found = [c for path in documents() for c in commands(path.read_text(encoding="utf-8"))]
    chosen = [c for c in found if settings.chapter in ("", c[0])]
    if not chosen:
        raise SlugError(f"no document has a command in a chapter {settings.chapter!r}")
    if not settings.follow:
        print("\n".join(dict.fromkeys(f"{title}\t{command}" for title, command, _ in chosen)))
        return
    clone = files.existing(settings.follow, "copy of the repository", "make it with src/demo/build_standin.py")
    follow([command for _, command, block in chosen if block], clone, files.resolve(settings.record))


if __name__ == "__main__":
    cli.exit_with(main)
