"""setup.sh: which Python it takes, what it installs, and what it refuses."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from wrappers import ROOT, shell

FAKE_PYTHON = """#!/bin/bash
[ -z "${BROKEN_PIP:-}" ] || [[ "$*" != *install* ]] || { echo "no such package"; exit 1; }
# A python that makes no environment and installs nothing, but writes down what it was asked for.
case "$*" in
  "-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  "-m pip"*) echo "$*" >>"$PIP_LOG" ;;
  *import\\ slug*) ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def bare(tmp_path):
    """A bare clone whose path has a space, and a function that runs its setup.sh where every Python is FAKE_PYTHON."""
    clone, path, log = tmp_path / "a clone", tmp_path / "bin", tmp_path / "pip.log"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / "data/emoji").mkdir(parents=True)
    for names in (ROOT / "data/emoji").glob("*_names.txt"):  # which profiles read
        shutil.copy(names, clone / "data/emoji")
    path.mkdir()
    for name in ("python", "python3", "python3.11", "python3.12"):
        (path / name).write_text(FAKE_PYTHON)
        (path / name).chmod(0o755)

    def setup(*args, **variables):
        variables = {"REAL_PYTHON": sys.executable, "PIP_LOG": log, "SLUG_PYTHON": "", **variables}
        done = shell(clone / "scripts/setup.sh", *args, cwd="/", PATH=f"{path}:{os.environ['PATH']}", **variables)
        asked = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return done, asked

    return clone, setup


def test_setup_installs_torch_first_and_every_package_at_its_locked_version(bare):
    clone, setup = bare
    done, asked = setup()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{clone}/.venv/bin/python\n"
    torch, torchvision, rest = installs = [a for a in asked if "install" in a]
    assert all("-c scripts/constraints.txt" in a for a in installs)
    assert torch.split()[-1] == "torch" and torchvision.split()[-1] == "torchvision" and "--no-deps" in torchvision
    assert rest.endswith("-e .[demo,diffusion,download,vlm,dev]")


def test_setup_installs_the_notebooks_packages_where_asked_and_says_how_to_start(bare):
    clone, setup = bare
    done, asked = setup("--notebooks", "--docs")
    assert asked[-1].endswith("-e .[demo,diffusion,download,vlm,dev,notebooks,docs]") and done.returncode == 0
    assert (
        done.stdout == f"{clone}/.venv/bin/python\n" and f"{clone}/.venv/bin/python -m jupyterlab notebooks" in done.stderr
    )
    done, _ = setup("--notebook")
    assert done.returncode == 2 and "unknown argument --notebook" in done.stderr


def test_setup_is_quiet_and_shows_the_end_of_its_log_where_it_fails(bare):
    clone, setup = bare
    assert [line.split()[0] for line in setup()[0].stderr.splitlines() if not line.startswith("+")] == ["set-up:"] * 2
    with (clone / "pyproject.toml").open("a") as f:
        f.write("# changed\n")
    done, _ = setup(BROKEN_PIP=1)
    assert done.returncode == 2 and done.stdout == ""
    assert "no such package" in done.stderr and f"{clone}/.venv/setup.log holds all" in done.stderr


@pytest.mark.parametrize("file", ["pyproject.toml", "scripts/constraints.txt"])
def test_setup_installs_again_only_after_a_change(bare, file):
    clone, setup = bare
    first, _ = setup()
    again, asked = setup()
    assert (again.stdout, asked) == (first.stdout, [])
    with (clone / file).open("a") as f:
        f.write("# changed\n")
    assert len(setup()[1]) == 4  # pip --version, then three installs


def test_setup_in_a_dry_run_makes_nothing(bare):
    clone, setup = bare
    done, asked = setup("--dry-run")
    assert done.returncode == 0 and "pip install" in done.stderr
    assert not asked and not (clone / ".venv").exists()


def test_setup_takes_an_environment_that_holds_the_locked_versions(bare):
    clone, setup = bare
    done, asked = setup(VIRTUAL_ENV=Path(sys.prefix))
    assert done.stdout == f"{sys.prefix}/bin/python\n" and not asked
    assert not (clone / ".venv").exists()


def test_setup_refuses_an_environment_with_another_version(bare):
    clone, setup = bare
    lock = clone / "scripts/constraints.txt"
    lock.write_text("".join("tqdm==0.1\n" if line.startswith("tqdm==") else line for line in lock.open()))
    done, asked = setup(VIRTUAL_ENV=Path(sys.prefix))
    assert f"{sys.prefix} lacks tqdm==0.1" in done.stderr and asked
    done, _ = setup(SLUG_PYTHON=sys.executable)
    assert done.returncode == 2 and "lacks tqdm==0.1" in done.stderr


def test_setup_refuses_other_pythons_in_one_line(bare, tmp_path):
    old = tmp_path / "old"
    old.write_text("#!/bin/bash\n[ $1 = -V ] && echo Python 3.9.2 || exit 1\n")
    old.chmod(0o755)
    done, asked = bare[1](REAL_PYTHON=old)
    assert done.returncode == 2 and not asked
    assert done.stderr.count("\n") == 1 and "Python 3.9.2" in done.stderr
    done, _ = bare[1](SLUG_PYTHON=old)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
