"""The profiles: shared defaults in base.sh, what differs in demo.sh and paper.sh, every variable open to the user."""

import os
import subprocess

import pytest
from wrappers import BASE, PROFILES, ROOT, named, shell, variables


def read(profile, names, **values):
    """{variable: value} after the profile and base.sh were read in an environment with these values."""
    line = f'set -euo pipefail; source "{profile}"; source "{BASE}"; for v in {" ".join(names)}; do echo "${{!v}}"; done'
    env = {"PATH": os.environ["PATH"], "ROOT": str(ROOT)} | values
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split("\n"), strict=False))


@pytest.mark.parametrize("path", [BASE, *PROFILES], ids=named)
def test_every_line_of_a_profile_sets_one_variable_with_a_default(path):
    code = [line for line in path.read_text().replace("\\\n", "").splitlines() if line and line[0] != "#"]
    assert len(variables(path)) == len(code) and all(line.startswith(': "${') for line in code)


def test_profiles_set_the_same_variables():
    assert len({frozenset(variables(BASE) | variables(p)) for p in PROFILES}) == 1


def test_a_profile_repeats_no_default_of_base():
    base = variables(BASE)
    repeated = [(p.name, v) for p in PROFILES for v, default in variables(p).items() if base.get(v) == default]
    assert not repeated
    shared = set.intersection(*(set(variables(p).items()) for p in PROFILES))
    assert not shared, "put these into base.sh"


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_the_environment_overrides_every_variable(profile):
    names = sorted(variables(BASE) | variables(profile))
    found = read(profile, names, **dict.fromkeys(names, "mine"))
    assert found == dict.fromkeys(names, "mine")


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_a_list_that_may_be_empty_can_be_emptied(profile):
    """`=` keeps an empty value, `:=` puts the default in its place; base.sh and the profile agree on which it is."""
    both = [variables(BASE), variables(profile)]
    signs = {name: {part[name][0] for part in both if name in part} for name in both[0] | both[1]}
    assert all(len(found) == 1 for found in signs.values()), signs
    empty = sorted(name for name, found in signs.items() if found == {"="})
    assert {"STYLES", "OBJECTS", "MULTI_OBJECTS", "MULTI_MIXTURE", "COMPARE_NAMES", "SETTINGS_FROM"} <= set(empty)
    assert read(profile, empty, **dict.fromkeys(empty, "")) == dict.fromkeys(empty, "")


def test_base_is_no_profile():
    done = shell(ROOT / "scripts/run_clip_slug.sh", "--dry-run", PROFILE="base")
    assert done.returncode == 2 and "there is no profile 'base'" in done.stderr
