"""The checks of the source's shape and language: each finds what it is for, in a small made-up repository."""

import importlib.util
import subprocess
import sys

import pytest
from wrappers import ROOT


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The checker's module on an empty repository, and a function that adds files to it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts/tools"))
    spec = importlib.util.spec_from_file_location("check_house", ROOT / "scripts/tools/check_house.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "src/slug")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)

    def add(path, text=""):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        subprocess.run(["git", "add", path], cwd=tmp_path, check=True)

    for name in ("__init__", "errors", "settings", "files", "core/__init__", "core/slug", "core/variants", "models/clip"):
        add(f"src/slug/{name}.py")
    for name in ("methods/__init__", "methods/ft", "evaluation/statistics", "artifacts/deltas", "reports/tables"):
        add(f"src/slug/{name}.py")
    for name in ("experiments/study", "experiments/__init__", "reports/__init__", "data/__init__", "evaluation/__init__"):
        add(f"src/slug/{name}.py")
    module.add = add
    return module


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("core/slug", "from slug.models import clip\nfrom slug import errors, files\n", []),
        ("core/slug", "def f():\n    from slug.methods import ft\n", ["core.slug imports methods.ft"]),
        ("models/clip", "import slug.core.slug\n", ["models.clip imports core.slug"]),
        ("artifacts/deltas", "from slug import reports\n", ["artifacts.deltas imports reports"]),
        ("artifacts/deltas", "from slug.evaluation.statistics import wilson\n", []),
        ("reports/tables", "from slug import files, methods\nfrom slug.evaluation import statistics\n", []),
        ("reports/tables", "from slug.core import slug\n", ["reports.tables imports core.slug"]),
        ("reports/tables", "from slug.methods import ft\n", ["reports.tables imports methods.ft"]),
        ("experiments/study", "from slug.reports import tables\n", []),
        ("methods/ft", "from slug.experiments import study\n", ["methods.ft imports experiments.study"]),
        ("settings", "from slug import methods\n", []),
        ("files", "from . import errors\n", ["files imports relative import in line 1"]),
        ("__init__", "from slug.experiments import study\n", []),
    ],
)
def test_imports_point_down(house, name, source, found):
    house.add(f"src/slug/{name}.py", source)
    assert list(house.imports()) == [f"src/slug: {f}" for f in found]


def test_lengths_of_modules_functions_and_stages_are_limited(house):
    house.add("src/slug/core/slug.py", "x = 1\n" * 121)
    house.add("src/slug/files.py", "class A:\n    def long(self):\n" + "        x = 1\n" * 60)
    house.add("src/slug/errors.py", "x = 1\n" * 350)
    house.add("src/sd/b1.py", "x = 1\n" * 101)
    assert list(house.lengths()) == [
        "src/slug/core/slug.py has 121 lines, at most 120",
        "src/slug/files.py:A.long has 61 lines, at most 60",
        "src/sd/b1.py has 101 lines, at most 100",
    ]


def test_only_cli_takes_the_flags_of_a_command_line(house):
    house.add("src/slug/cli.py", "def f(args): ...\n")
    house.add("src/slug/files.py", "def f(*args): ...\ndef g(x, *, args=None): ...\n")
    assert list(house.parameters()) == ["src/slug/files.py:2: a parameter called args"]


def test_files_that_are_named_must_be_there(house):
    text = "`src/slug/files.py`, src/slug/*.py, scripts/run_none.sh, data/demo/x.md, PLAN.md and README.md"
    house.add("README.md", text)
    house.add("scripts/run.sh", '"$ROOT/scripts/$name.sh" {prefix}.md run.sh\n')
    house.add("tests/test_x.py", '"""See OTHER.md."""\nopen("made.py")  # by none.py\n')
    assert sorted(house.references()) == [
        "README.md:1: scripts/run_none.sh is not there",
        "README.md:1: there is no PLAN.md",
        "tests/test_x.py:1: there is no OTHER.md",
        "tests/test_x.py:2: there is no none.py",
    ]


def test_private_words_are_found_in_code_and_prose(house):
    house.add("src/slug/files.py", "WHITENED = 1\n# the Select halves settle on it (trap 3)\n")
    house.add("docs/use.md", "It carries nothing; what stays\n")
    found = [line.split("; write")[0] for line in house.words()]
    assert found == [
        "docs/use.md:1: 'what stays'",
        "src/slug/files.py:1: 'WHITENED'",
        "src/slug/files.py:2: 'Select halves'",
        "src/slug/files.py:2: 'settle on'",
        "src/slug/files.py:2: 'trap 3'",
    ]


SETTINGS = """
@dataclass(frozen=True)
class Run:
    seed: int = flag(0, "seed")
    device: str = flag("cpu", "device")
    speed: float = flag(1.0)

@dataclass(frozen=True)
class Base:
    share: float = flag(1.0, "fraction of pictures")

@dataclass(frozen=True)
class Forget(Base):
    run: Run = group(Run)
    name: tuple[str, ...] = flag(help="names")
    force: bool = flag(False, "again")
    step: float = flag(0.0, "step")
    unread: int = flag(1, "only recorded")

    def __post_init__(self):
        check(self.unread)
"""
READERS = """
def seeded(how: "Run | None") -> Run:
    return how

class Judge:
    def __init__(self, settings: Forget):
        self.settings = settings

    def share(self):
        return [draw(part=self.settings.share) for _ in "ab"]

def main():
    settings = cli.parse(__doc__, Forget, None)
    run, other = settings.run, 1
    if seeded(run).seed:
        print(f"{(lambda: settings.name)()}", dataclasses.replace(settings, x=1).force)
    unknown.step, unknown.device
    record(settings)
"""


def test_flags_are_read_by_code_that_knows_what_they_are_of(house):
    house.add("src/slug/settings.py", SETTINGS)
    house.add("src/clip/a9.py", READERS)
    found = [line.split(": ")[1] for line in house.flags()]
    assert found == [
        "nothing reads Run.device",
        "nothing reads Run.speed",
        "Run.speed has no help text",
        "nothing reads Forget.step",
        "nothing reads Forget.unread",
    ]


def test_stages_that_import_slow_packages_for_help_are_named(house):
    house.add("src/clip/a1.py", "import sys\nsys.exit(0)\n")
    house.add("src/clip/a2.py", "import numpy, joblib, pandas\n")
    house.add("src/clip/a3.py", "1 / 0\n")
    assert list(house.help_texts()) == ["src/clip/a2.py --help imports pandas", "src/clip/a3.py --help fails"]


def test_the_exit_code_says_whether_a_check_failed(house, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check_house.py", "--only", "words", "parameters"])
    house.add("src/sd/b1.py")
    assert house.main() == 0
    house.add("README.md", "the peers\n")
    assert house.main() == 1 and "README.md:1: 'peers'; write: baselines" in capsys.readouterr().out
