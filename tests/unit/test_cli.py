"""Command lines made of settings."""

from dataclasses import dataclass

import pytest

from slug import cli
from slug.cli import flag


def test_an_interruption_is_no_error_of_ours(capfd):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.exit_with(interrupted)
    assert end.value.code == 130 and "interrupted" in capfd.readouterr().err


def test_a_package_of_an_extra_that_is_not_installed_is_one_line(capfd):
    def needs(package):
        def main():
            raise ModuleNotFoundError(name=package)

        return main

    with pytest.raises(SystemExit, match="2"):
        cli.exit_with(needs("diffusers"))
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "diffusers is not installed" in err and "'.[diffusion]'" in err
    with pytest.raises(ModuleNotFoundError):
        cli.exit_with(needs("somebody_elses"))


@dataclass(frozen=True)
class Seeds:
    test_seeds: tuple[int, ...] = flag((0,), "seeds", aliases=("--report-seeds",))


@pytest.mark.parametrize("spelling", ["--test-seeds", "--report-seeds"])
def test_an_alias_is_accepted_for_a_flag(spelling):
    assert cli.parse("", Seeds, [spelling, "3", "4"]).test_seeds == (3, 4)
