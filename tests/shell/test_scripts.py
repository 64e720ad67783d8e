"""Every script: bash's strict mode, dry runs, help, and one-line errors."""

import functools
import re
import subprocess

import pytest
import tiny
from wrappers import BASE, PROFILES, ROOT, SCRIPTS, WRAPPERS, called, named, shell


@pytest.mark.parametrize("script", [*SCRIPTS, BASE, *PROFILES, ROOT / ".ci/run"], ids=named)
def test_scripts_parse_and_stop_at_the_first_error(script):
    subprocess.run(["bash", "-n", script], check=True)
    if script not in (BASE, *PROFILES):
        assert re.search(r"^set -euo pipefail$", script.read_text(), re.M)


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_no_script_makes_the_name_of_a_method_from_that_of_another(script):
    assert not re.findall(r"\$\{\w*(?:method|METHOD)\w*[^\w}:\[@]", script.read_text())


@pytest.mark.parametrize("script", [*SCRIPTS, BASE], ids=named)
def test_lists_that_may_be_empty_are_guarded(script):
    """Before 4.4 bash takes "${list[@]}" of an empty list for an unset variable, and stops."""
    text = script.read_text()
    for name in {*re.findall(r"(\w+)=(?:\(\)|\(\"\$@\"\))", text)} - {
        "jobs",
        "names",
    }:  # these are not empty where they are read
        used = re.sub(rf'\$\{{{name}\[@\]\+(?:[\w-]+ )?"\$\{{{name}\[@\]\}}"\}}', "", text)
        assert f'"${{{name}[@]}}"' not in used, name


# README's commands name their profile themselves, and take long: one profile is enough.
BOTH = [(s, p) for s in WRAPPERS for p in PROFILES if (s.stem, p.stem) != ("check_readme", "paper")]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """A function that runs a script dry with a profile, once, from an empty folder; returns it and what it said."""

    @functools.cache
    def run(script, profile):
        folder = tmp_path_factory.mktemp("elsewhere")
        return folder, shell(script, "--dry-run", cwd=folder, PROFILE=profile.stem, RESULT_DIR=folder / "results")

    return run


@pytest.mark.parametrize(("script", "profile"), BOTH, ids=named)
def test_dry_run_anywhere_names_stages_that_exist_and_writes_nothing(script, profile, dry_run):
    folder, done = dry_run(script, profile)
    assert done.returncode == 0, done.stderr
    for stage in re.findall(r"\bsrc/[\w/]+\.py", done.stdout):
        assert (ROOT / stage).is_file(), f"{script.name} calls {stage}, which is not there"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("script", "profile"), BOTH, ids=named)
def test_stages_accept_what_a_script_gives_them(script, profile, dry_run):
    for path, arguments in called(dry_run(script, profile)[1]):
        if path.parts[-2] in ("clip", "sd", "vlm"):
            tiny.stage(path.stem).parse_args(arguments)


@pytest.mark.parametrize("script", WRAPPERS, ids=named)
def test_help_says_what_a_script_does(script):
    done = shell(script, "--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 1, done.stderr


def test_a_missing_earlier_stage_is_named_with_its_command(tmp_path):
    done = shell(ROOT / "scripts/run_compute_grad.sh", TAR_DIR=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/Ann_Example.tar" in done.stderr
    assert "python src/clip/a0_create_tar.py --name Ann_Example" in done.stderr


@pytest.mark.parametrize(
    "arguments, variables", [((), {"NAMES": " "}), (("--bogus",), {}), ((), {"PROFILE": "../x"})], ids=str
)
def test_wrong_use_ends_with_one_line(arguments, variables):
    script = "run_demo.sh" if arguments else "run_clip_slug.sh"
    done = shell(ROOT / "scripts" / script, *arguments, **variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
