"""How tests run the shell scripts, and read what a dry run would call."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "scripts" / "profiles" / "base.sh"  # defaults of all profiles
PROFILES = sorted(p for p in (ROOT / "scripts" / "profiles").glob("*.sh") if p != BASE)
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
WRAPPERS = [p for p in SCRIPTS if p.name != "common.sh"]
UNSET = ("SLUG_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PROFILE", "DRY_RUN")


def named(path):
    """The id of a test that is given a path."""
    return path.name


def variables(path):
    """{variable: (sign, default)} of a profile. The default replaces an empty value if the sign is :=, not if it is =."""
    text = path.read_text().replace("\\\n", "")
    return {name: (sign, default) for name, sign, default in re.findall(r'^: "\$\{(\w+)(:?=)(.*)\}"(?: #.*)?$', text, re.M)}


def shell(script, *args, cwd=ROOT, **values):
    """Run a script in this Python's environment, with `values` as its only variables beside those of every shell."""
    unset = {*UNSET, *(v for p in (BASE, *PROFILES) for v in variables(p))}
    env = {k: v for k, v in os.environ.items() if k not in unset}
    env |= {"SLUG_PYTHON": sys.executable, "NAMES": "Ann_Example Bob_Example"}
    env |= {k: str(v) for k, v in values.items()}
    command = ["bash", str(script), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def called(done):
    """[(path of a Python file, its arguments)] of the commands that a dry run prints, in order."""
    lines = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("+ ")]
    return [(Path(line[2]), line[3:]) for line in lines if len(line) > 2 and line[2].endswith(".py")]


def calls(done, stage):
    """The arguments of each call of a stage in a dry run."""
    return [arguments for path, arguments in called(done) if path.stem == stage]


def given(call, flag):
    """The values of a flag in one call's arguments."""
    rest = call[call.index(flag) + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))]
