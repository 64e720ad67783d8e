"""Command lines made of settings: one flag for each field of a frozen dataclass, built once by `parse`.

A field made by `flag` declares a command-line flag: name, type, default and help stand once. A field made by `group` holds
another dataclass, whose flags join in. This module alone knows argparse, and it imports nothing slow: `--help` is immediate.
"""

import argparse
import dataclasses
import math
import os
import platform
import shlex
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import slug
from slug import files, protocols
from slug.errors import SlugError

Settings = TypeVar("Settings")
# Numbers that a flag takes: a field of one of these types refuses all others when a command line is parsed.
Count = Annotated[int, "a whole number of at least 1", lambda x: x >= 1]
Whole = Annotated[int, "a whole number of at least 0", lambda x: x >= 0]
Pairs = Annotated[
    int, "a whole number of at least 2; of a batch of one pair the contrastive gradient is 0", lambda x: x >= 2
]
Seed = Annotated[int, "a whole number from 0 to 2^32 - 1", lambda x: 0 <= x < 2**32]
Bits = Annotated[int, "a whole number from 0 to 64, or -1 for none", lambda x: -1 <= x <= 64]
Finite = Annotated[float, "a number", math.isfinite]
Amount = Annotated[float, "a number of at least 0", lambda x: 0 <= x < math.inf]
Positive = Annotated[float, "a number above 0", lambda x: 0 < x < math.inf]
Fraction = Annotated[float, "a fraction from 0 to 1", lambda x: 0 <= x <= 1]
Share = Annotated[float, "a fraction above 0, at most 1", lambda x: 0 < x <= 1]
# A folder that is written: it need not be there yet.
Folder = Annotated[str, "a folder: one cannot write into a file, or below one", files.can_be_folder]

EXTRAS = {"diffusers": "diffusion", "peft": "diffusion", "transformers": "vlm", "resvg_py": "demo"}  # {package: extra}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of a stage."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end with exit code 2."""
        self.exit(2, f"error: {' '.join(message.split())}; --help lists the flags\n")


def flag(
    default: Any = dataclasses.MISSING,  # value without the flag; none makes the flag required
    help: str = "",  # text for --help, with units; the default is added to it
    *,
    choices: Sequence | Callable[[], Sequence] | None = None,  # or a function, called when a parser is made
    nargs: str | int | None = None,  # as argparse's, for tuples: "+" (the default for a tuple), "*", or a number
    metavar: tuple[str, ...] | None = None,
    parse: Callable[[str], Any] | None = None,  # turns the text into the value; by default the field's type does
    exclusive: str = "",  # flags with the same word here exclude each other
    aliases: tuple[str, ...] = (),  # further spellings that are accepted, e.g. ("--old-name",)
    by: str = "",  # point of the protocol (slug.protocols) that gives the value where the flag is left out
) -> Any:
    """A field that is a command-line flag."""
    metadata = {"help": help, "choices": choices, "nargs": nargs, "metavar": metavar, "parse": parse, "exclusive": exclusive}
    default = None if by else default
    return dataclasses.field(default=default, kw_only=True, metadata={"flag": metadata | {"aliases": aliases, "by": by}})


def group(kind: type, **defaults: Any) -> Any:
    """A field that holds the settings `kind`, whose flags become flags of the whole; `defaults` replaces some defaults."""
    missing = dataclasses.MISSING
    needed = [f for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]
    made: Any = (lambda: kind(**defaults)) if all(f.name in defaults for f in needed) else missing
    return dataclasses.field(default_factory=made, kw_only=True, metadata={"group": kind, "defaults": defaults})


def within(kind: Any) -> Callable[[str], Any]:
    """What turns a flag's text into a value of its type: of the types above, only one that lies in their range."""
    if typing.get_origin(kind) is not Annotated:
        return kind
    number, (words, fits) = kind.__origin__, kind.__metadata__

    def convert(text: str) -> Any:
        try:
            value = number(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"{text}: it must be {words}")
        return value

    return convert


def parse(
    description: str | None, kind: type[Settings], argv: Sequence[str] | None = None, prog: str | None = None
) -> Settings:
    """The settings `kind` from a command line (the process's own where `argv` is None); `prog` is the command's name in its
    help."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog, description=description, formatter_class=plain, allow_abbrev=False)
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
        if about["by"] and default is None:
            ours, paper = (_shown(getattr(p, about["by"])) for p in (protocols.OURS, protocols.PAPER))
            options["help"] += f" (default: the protocol's: {ours}, or {paper} with --protocol paper)".replace("%", "%%")
        elif not required and default is not False and default not in ("", ()):  # 0 is a default that is shown
            options["help"] += f" (default: {_shown(default)})".replace("%", "%%")
        of_many = typing.get_origin(field.type) is tuple
        if field.type is bool:
            options["action"] = "store_true"
        else:
            one = of_many or isinstance(field.type, types.UnionType)  # `int` of `int | None` and of `tuple[int, ...]`
            options["type"] = about["parse"] or within(typing.get_args(field.type)[0] if one else field.type)
            choices = about["choices"]() if callable(about["choices"]) else about["choices"]
            options |= {"choices": tuple(choices)} if choices else {}
            options |= {"nargs": about["nargs"] or "+"} if of_many else {}
            options |= {"metavar": about["metavar"]} if about["metavar"] else {}
        word = about["exclusive"]
        if word and word not in exclusive:
            exclusive[word] = parser.add_mutually_exclusive_group()
        exclusive.get(word, parser).add_argument(f"--{field.name.replace('_', '-')}", *about["aliases"], **options)


def _shown(default: Any) -> str:
    """A default as a help text shows it."""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def follow(settings: Any, protocol: protocols.Protocol) -> None:
    """Give every flag that was left to the protocol (see `by` of `flag`) the protocol's value, also in groups."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            object.__setattr__(settings, field.name, followed(value, protocol))
        elif value is None and field.metadata.get("flag", {}).get("by"):
            object.__setattr__(settings, field.name, getattr(protocol, field.metadata["flag"]["by"]))


def followed(settings: Settings, protocol: protocols.Protocol) -> Settings:
    """A copy of settings after `follow`; others may hold the same group."""
    settings = dataclasses.replace(settings)  # type: ignore[type-var]
    follow(settings, protocol)
    return settings


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
    """All settings as one {flag: value} for a record: tuples as lists, paths inside the repository relative to it."""
    inside = f"{files.ROOT}{os.sep}"
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= flat(value, without)
        elif field.name not in without:
            value = list(value) if isinstance(value, tuple) else value
            found[field.name] = value.replace(inside, "") if isinstance(value, str) else value
    return found


def values(*settings: Any) -> dict[str, Any]:
    """{field: value} of settings as they were given, for `command`."""
    found: dict[str, Any] = {}
    for part in settings:
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            found |= values(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def command(script: str, kind: type, given: Mapping[str, Any]) -> str:
    """A command line that a shell runs as it stands: `script` with its flags of the settings `kind` as in `given`, {field:
    value}, without those that are at their defaults."""
    words = ["python", script]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, kind)
    for action in parser._actions:  # the one list of all flags, those of groups among them
        value = given.get(action.dest, action.default)
        if action.dest == "help" or value == action.default:
            continue
        words.append(action.option_strings[0])
        if value is not True:
            words += map(str, value if isinstance(value, (tuple, list)) else [value])
    return shlex.join(words)


def versions() -> dict[str, str]:
    """The versions that a record carries."""
    from importlib.metadata import version

    return {"slug": slug.__version__, "torch": version("torch"), "python": platform.python_version()}


def part_of(part: tuple[int, int], whole: list) -> list:
    """The I-th of N parts of a list, as --part says: every N-th item. SlugError unless 1 <= I <= N."""
    number, count = part
    if not 1 <= number <= count:
        raise SlugError(f"--part {number} {count}: the first number must lie between 1 and the second")
    return whole[number - 1 :: count]


def exit_with(main: Callable[[], None]) -> None:
    """Run a stage's main(); an expected failure prints one line and ends with exit code 2."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
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
