"""What installs: ranges, their locked versions, extras, and what the package holds."""

import re
import tomllib

from wrappers import ROOT

import slug

LOCK = ROOT / "scripts" / "constraints.txt"


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def plain(name):
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked():
    """{package: version} of the lock."""
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines) and lines == sorted(lines, key=str.lower)
    return {plain(name): version for name, version in (line.split("==") for line in lines)}


def numbers(version):
    return tuple(int(n) for n in re.findall(r"\d+", version))


def test_every_requirement_is_a_range_that_holds_its_locked_version():
    versions, about = locked(), project()
    for requirement in about["dependencies"] + [r for extra in about["optional-dependencies"].values() for r in extra]:
        name, low, high = re.fullmatch(r"([\w.-]+)>=([\d.]+),<([\d.]+)", requirement).groups()
        assert numbers(low) <= numbers(versions[plain(name)]) < numbers(high), requirement


def test_conda_and_setup_install_the_same_extras_at_the_locked_versions():
    conda = (ROOT / "environment.yml").read_text()
    (extras,) = re.findall(r"^EXTRAS=(\S+)", (ROOT / "scripts/setup.sh").read_text(), re.M)
    assert f"- -c scripts/constraints.txt\n      - -e .[{extras},notebooks]\n" in conda
    apart = {"notebooks", "study", "explore", "docs", "eval-unlearn", "clip-benchmark"}
    assert set(extras.split(",")) == set(project()["optional-dependencies"]) - apart


def test_the_version_is_the_newest_of_the_changelog():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest == project()["version"] == slug.__version__
    assert f"\nversion: {newest}\n" in (ROOT / "CITATION.cff").read_text()


def test_only_slug_is_installed_and_it_is_typed():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert tool["packages"]["find"]["include"] == ["slug*"] and tool["package-data"]["slug"] == [
        "py.typed",
        "reports/templates/*",
    ]
    assert (ROOT / "src/slug/py.typed").is_file()
