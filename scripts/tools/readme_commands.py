#!/usr/bin/env python
"""The commands of README, in order: those in bash blocks, and those that a sentence or a table names. A line each, after the
title of their chapter and a tab.

Example: python scripts/tools/readme_commands.py
         python scripts/tools/readme_commands.py --chapter "Real data" --follow results/standin-clone
The second form runs the commands of a chapter's blocks in another copy of the repository and writes down what they said.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from slug import cli, files
from slug.errors import SlugError

START = re.compile(
    r"(?:[A-Z_]+=(?:\"[^\"]*\"|'[^']*'|\S+) )*(?:bash|python) (?:scripts|src)/\S+|python -m zipfile |git |cd "
)
SHOWN = 60  # lines of a command's output, at most
HEAD = """# README's real-data chapter, followed on stand-ins

Written by `scripts/run_standin.sh`: every command of the chapter's block, in its order and as it stands there, in a bare
copy of this repository whose `data/` held only the downloads that a user would have put there. They are stand-ins of the
same names and formats, made of the embedded world (`src/demo/build_standin.py`), and the model is the demo's: the run shows
that the commands, file formats and stages fit together. Its figures say nothing about the paper's experiment.
"""


def commands(text):
    """[(chapter, command, whether it stands in a block)] of a Markdown text."""
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
    """What a command printed, as a reader wants it: no progress bars, no paths of this machine, not too long."""
    output = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output)  # colours, and how bars move the cursor
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in output.splitlines()]
    lines = [line for line in lines if line and not re.search(r"\d+%\||\d+(?:it|[a-z]+)? \[\d\d:\d\d", line)]
    lines = [line.replace(f"{clone}/", "").replace(str(clone), ".").replace(sys.executable, "python") for line in lines]
    if len(lines) > SHOWN:
        lines = [*lines[: SHOWN // 3], f"... ({len(lines) - SHOWN} lines)", *lines[-2 * SHOWN // 3 :]]
    return "\n".join(lines)


def follow(chosen, clone, record):
    """Run commands in `clone`; write them and what they said to `record`. SlugError where one fails, after writing."""
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
        raise SlugError(f"README's command failed on the stand-ins: {failed}; what it said is in {record}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapter", default="", help="only the commands of this one")
    parser.add_argument("--follow", default="", help="copy of the repository to run them in")
    parser.add_argument("--record", default="results/standin/README.md", help="where --follow writes what they said")
    args = parser.parse_args(argv)
    text = (files.ROOT / "README.md").read_text(encoding="utf-8")
    chosen = [c for c in commands(text) if args.chapter in ("", c[0])]
    if not chosen:
        raise SlugError(f"README has no command in a chapter {args.chapter!r}")
    if not args.follow:
        print("\n".join(dict.fromkeys(f"{title}\t{command}" for title, command, _ in chosen)))
        return
    clone = files.existing(args.follow, "copy of the repository", "make it with src/demo/build_standin.py")
    follow([command for _, command, block in chosen if block], clone, files.resolve(args.record))


if __name__ == "__main__":
    cli.exit_with(main)
