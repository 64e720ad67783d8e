"""Command lines made of settings."""

import dataclasses
import shlex
import subprocess
import sys
import typing
from dataclasses import dataclass

import pytest
import tiny

from slug import cli, files, settings
from slug.cli import flag
from slug.data import settings as data_settings


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


# ------------------------------------------------------------------------------------------------------ ranges of numbers

BEYOND = {  # texts that a type of number refuses, and some that it takes
    "Count": (("0", "-4", "1.5", "nan", "inf", "x", ""), ("1", "500")),
    "Whole": (("-1", "nan"), ("0", "7")),
    "Pairs": (("0", "1", "-4"), ("2",)),
    "Seed": (("-1", "4294967296"), ("0", "4294967295")),
    "Finite": (("nan", "inf", "-inf"), ("-1", "1e38")),
    "Amount": (("-0.1", "nan", "inf"), ("0", "3")),
    "Positive": (("0", "-1", "nan", "inf"), ("1e-7",)),
    "Fraction": (("-0.1", "1.1", "nan"), ("0", "1")),
    "Share": (("0", "-1", "2", "nan"), ("1", "0.3")),
}


@pytest.mark.parametrize("kind", BEYOND)
def test_numbers_out_of_range_are_refused_with_the_range(capfd, kind):
    @dataclass(frozen=True)
    class Settings:
        some_number: getattr(cli, kind) = flag(1)
        several: tuple[getattr(cli, kind), ...] = flag((1,))

    for name in ("--some-number", "--several"):
        for text in BEYOND[kind][1]:
            cli.parse("", Settings, [f"{name}={text}"])
        for text in BEYOND[kind][0]:
            with pytest.raises(SystemExit, match="2"):
                cli.parse("", Settings, [f"{name}={text}"])
            err = capfd.readouterr().err
            assert err.startswith(f"error: argument {name}: {text}: it must be a ") and err.count("\n") == 1


def flags_of(kind):
    """All fields of settings that are flags."""
    for field in dataclasses.fields(kind):
        if "group" in field.metadata:
            yield from flags_of(field.metadata["group"])
        else:
            yield field


def test_every_number_of_every_stage_has_a_range():
    kinds = [k for k in vars(settings).values() if dataclasses.is_dataclass(k)] + [data_settings.Download]
    for script in sorted((files.ROOT / "src").glob("*/*.py")):
        if script.parent.name in ("clip", "sd", "vlm"):
            kinds += [k for k in vars(tiny.stage(script.stem)).values() if dataclasses.is_dataclass(k)]
    every = [f for kind in kinds for f in flags_of(kind) if not f.metadata["flag"]["parse"]]
    ranges = {
        f.name: f.type if typing.get_origin(f.type) is typing.Annotated else typing.get_args(f.type) or f.type for f in every
    }
    plain = {name for name, kind in ranges.items() if {int, float} & {*(kind if isinstance(kind, tuple) else [kind])}}
    assert len(every) > 100 and not plain


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...] = flag(("a",))
    quick: bool = flag(False)


@dataclass(frozen=True)
class Outer:
    inner: Inner = cli.group(Inner)
    share: cli.Share = flag(0.5)


@pytest.mark.parametrize("given", [{}, {"names": ("x y", "o'z", "$HOME"), "quick": True, "share": 0.25, "other": 1}])
def test_a_command_parses_to_what_it_was_made_of(given):
    python, script, *argv = shlex.split(cli.command("src/a.py", Outer, given))
    made = cli.values(cli.parse("", Outer, argv))
    assert (python, script) == ("python", "src/a.py")
    assert made == {"names": ("a",), "quick": False, "share": 0.5} | {k: v for k, v in given.items() if k != "other"}


def test_a_reader_that_closes_the_output_ends_a_command_without_a_traceback():
    code = "from slug import cli; cli.exit_with(lambda: print('line\\n' * 100_000))"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tiny.ROOT / "src")
    assert (done.stdout, done.stderr) == ("line\n141\n", "")
