"""Command lines made of settings: one flag for each field of a frozen dataclass, built once by `parse`.

A field made by `flag` declares a command-line flag: name, type, default and help stand once. A field made by `group` holds
another dataclass, whose flags join in. This module alone knows argparse, and it imports nothing slow: `--help` is immediate.
"""

import argparse
import dataclasses
import os
import platform
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import slug
from slug import files
from slug.errors import SlugError

Settings = TypeVar("Settings")
EXTRAS = {"diffusers": "diffusion", "peft": "diffusion", "transformers": "vlm", "resvg_py": "demo"}  # {package: extra}


def flag(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    choices: Sequence | Callable[[], Sequence] | None = None,
    nargs: str | int | None = None,
    metavar: tuple[str, ...] | None = None,
    parse: Callable[[str], Any] | None = None,
    exclusive: str = "",
    aliases: tuple[str, ...] = (),
) -> Any:
    """A field that is a command-line flag.

    Args:
        default: value without the flag; none makes the flag required.
        help: text for --help, with units; the default is added to it.
        choices: allowed values, or a function that returns them, called when a parser is made.
        nargs: as argparse's, for tuples: "+" (the default for a tuple), "*", or a number.
        parse: turns the text into the value; by default the field's type does.
        exclusive: flags with the same word here exclude each other.
        aliases: further spellings that are accepted, e.g. ("--old-name",).
    """
    metadata = {"help": help, "choices": choices, "nargs": nargs, "metavar": metavar, "parse": parse, "exclusive": exclusive}
    metadata["aliases"] = aliases
    return dataclasses.field(default=default, kw_only=True, metadata={"flag": metadata})


def group(kind: type, **defaults: Any) -> Any:
    """A field that holds the settings `kind`, whose flags become flags of the whole; `defaults` replaces some defaults."""
    made = (lambda: kind(**defaults)) if all_have_defaults(kind, defaults) else dataclasses.MISSING
    return dataclasses.field(default_factory=made, kw_only=True, metadata={"group": kind, "defaults": defaults})


def all_have_defaults(kind: type, given: dict[str, Any]) -> bool:
    """Whether settings of this kind can be made from the defaults alone."""
    missing = dataclasses.MISSING
    return all(
        f.default is not missing or f.default_factory is not missing or f.name in given for f in dataclasses.fields(kind)
    )


def parse(description: str | None, kind: type[Settings], argv: Sequence[str] | None = None) -> Settings:
    """The settings `kind` from a command line (the process's own where `argv` is None)."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_flags(parser, kind)
    return build(kind, vars(parser.parse_args(argv)))


def add_flags(parser: argparse.ArgumentParser, kind: type, defaults: dict[str, Any] | None = None) -> None:
    """Declare the flags of the settings `kind`."""
    exclusive: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if "group" in field.metadata:
            add_flags(parser, field.metadata["group"], field.metadata["defaults"])
            continue
        about = field.metadata["flag"]
        default = (defaults or {}).get(field.name, field.default)
        required = default is dataclasses.MISSING
        options: dict[str, Any] = {"help": about["help"]} | ({"required": True} if required else {"default": default})
        if not required and default not in ("", False, ()):
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
            options["help"] += f" (default: {shown})".replace("%", "%%")
        of_many = typing.get_origin(field.type) is tuple
        if field.type is bool:
            options["action"] = "store_true"
        else:
            options["type"] = about["parse"] or (typing.get_args(field.type)[0] if of_many else _plain(field.type))
            choices = about["choices"]() if callable(about["choices"]) else about["choices"]
            options |= {"choices": tuple(choices)} if choices else {}
            options |= {"nargs": about["nargs"] or "+"} if of_many else {}
            options |= {"metavar": about["metavar"]} if about["metavar"] else {}
        word = about["exclusive"]
        if word and word not in exclusive:
            exclusive[word] = parser.add_mutually_exclusive_group()
        exclusive.get(word, parser).add_argument(f"--{field.name.replace('_', '-')}", *about["aliases"], **options)


def _plain(kind: Any) -> Any:
    """`int` of `int | None`; other types as they are."""
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def build(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """The settings `kind` from a flat {field: value}; lists become tuples, so that nothing can be changed afterwards."""
    made = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if "group" in field.metadata:
            made[field.name] = build(field.metadata["group"], values)
        else:
            value = values[field.name]
            made[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


def flat(settings: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """All settings as one {flag: value} for a record: tuples as lists, paths inside the repository relative to it.

    Args:
        without: flags that change no result.
    """
    inside, found = f"{files.ROOT}{os.sep}", {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= flat(value, without)
        elif field.name not in without:
            value = list(value) if isinstance(value, tuple) else value
            found[field.name] = value.replace(inside, "") if isinstance(value, str) else value
    return found


def versions() -> dict[str, str]:
    """The versions that a record carries."""
    from importlib.metadata import version

    return {"slug": slug.__version__, "torch": version("torch"), "python": platform.python_version()}


def check_result_dir(path: str) -> Path:
    """The result folder, made and shown to be writable before any long work. SlugError if it is not."""
    return files.check_writable(getattr(path, "result_dir", path))  # a namespace, until the last stage is converted


def part_of(part: tuple[int, int], whole: list) -> list:
    """The I-th of N parts of a list, as --part says: every N-th item. SlugError unless 1 <= I <= N."""
    number, count = part
    if not 1 <= number <= count:
        raise SlugError(f"--part {number} {count}: the first is a number from 1 to the second")
    return whole[number - 1 :: count]


def exit_with(main: Callable[[], None]) -> None:
    """Run a stage's main(); an expected failure prints one line and ends with exit code 2."""
    try:
        main()
    except (SlugError, ModuleNotFoundError) as err:
        package = getattr(err, "name", None)
        if isinstance(err, ModuleNotFoundError) and package not in EXTRAS:
            raise
        lacks = f"{package} is not installed; run: pip install -c scripts/constraints.txt -e '.[{EXTRAS.get(str(package))}]'"
        print(f"error: {lacks if package else err}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


# ------------------------------------------------------------------ the old way, until the last stage is converted


def parser(description):
    """An ArgumentParser with the flags that every stage has."""
    from slug.settings import Run

    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_flags(out, Run)
    return out


def add_model_flags(parser):
    """The flags that say which CLIP is meant."""
    from slug.settings import Model

    add_flags(parser, Model)


def add_data_flags(parser):
    """The flags that say what is forgotten, what is retained, and what a candidate is judged by."""
    from slug.settings import Data

    add_flags(parser, Data)


def settle(args):
    """Seed everything and settle the device; returns the torch device. SlugError if the device is not there."""
    from slug import system

    return system.settle(args.device, args.seed)


def settings(args, *, without=()):
    """The flags of a run for its record."""
    inside = f"{files.ROOT}{os.sep}"
    values = {k: v for k, v in vars(args).items() if k not in without}
    return {k: v.replace(inside, "") if isinstance(v, str) else v for k, v in values.items()}


def check_jobs(args):
    """SlugError unless --jobs, the processes of a stage, are one or more."""
    if args.jobs < 1:
        raise SlugError(f"--jobs {args.jobs}: there must be one process or more")
