#!/usr/bin/env python
"""Checks the shape and the language of the source, and prints what it counted.

Example: python scripts/tools/check_house.py                    ends with exit code 1 if a check fails
         python scripts/tools/check_house.py --only words       one of the checks

Checks: lengths of modules, functions and stages; imports that point up; parameters called args; references to files that the
repository does not contain; words that this project does not use; imports that make --help slow; flags that nothing reads.
"""

import argparse
import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import settings_reads

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "slug"
STAGE_FOLDERS = ("clip", "sd", "vlm")
# Lines; of the package lines of code, without docstrings, comments and blank lines.
LIMITS = {"core/slug.py": 120, "stage": 100, "module": 350, "function": 60, "package": 19_000}
READ_BY_NAME = {  # flags that code reads by their names, as strings: why
    "Compare.lr": "Method.setting",
    "Compare.selection": "Method.setting",
    "Compare.epochs": "Method.epochs",
    "Compare.forget_epochs": "Method.epochs",
    "Compare.wd": "comparison.argument reads it from a record",
    "Compare.warmup": "comparison.argument reads it from a record",
}
LONG_FUNCTIONS = {
    "face.py:forget": "its docstring explains every argument, with examples that the tests run"
}  # {"package/module.py:function": why it is long}

# A module imports from its own layer and those before it. The package's face, slug/__init__.py, may import all of them.
LAYERS = (
    {
        "errors",
        "schema",
        "protocols",
        "setting_groups",
        "settings",
        "cli",
        "files",
        "system",
        "pool",
        "progress",
        "distributed",
        "torchvision_cpu",
    },
    {"data"},
    {"models"},
    {"core"},
    {"methods", "evaluation", "artifacts"},
    {"reports"},
    {"experiments"},
    {"face", "edits", "commands", "delta_commands", "eval_unlearn", "explorer", "__main__"},
)
REPORTS_READ = re.compile(r"(?:files|schema|errors|protocols|settings|methods|evaluation\.statistics|reports(?:\..*)?)$")
# {(module, imported): why}: neither makes the importing module depend on what it must not.
ALLOWED_UP = {
    ("settings", "methods"): "the registry of method names, imported when a parser is made",
    ("settings", "core.variants"): "names of gradient kinds, imported when a parser is made",
}
SLOW = ("torch", "open_clip", "transformers", "diffusers", "pandas", "matplotlib", "scipy", "sklearn", "timm")  # to import

# Words that a reader cannot know, or that say less than the usual term, and what to write.
WORDS = {
    r"\b(?:select|report)(?:ing|ed)? hal(?:f|ves)\b": "validation split, test split",
    r"\bwhiten(?:ed|ing|s)?\b": "preconditioned",
    r"\bcarriers?\b": "host model",
    r"\bpeers?\b": "baselines",
    r"\bsettle[sd]? on\b": "chosen",
    r"\bsaid aloud\b": "reported",
    r"\bwhat (?:must )?stays?\b": "retained accuracy, retained tasks",
    r"\btaken? out again\b": "reverted",
    r"\bupper bound of a zero\b": "one-sided 95% upper bound",
    r"\btraps? \d+": "the reason itself",
}
NAME_OLD_WORDS = ("scripts/tools/check_house.py", "scripts/tools/compare_runs.py")  # because that is what they are for
PATH = re.compile(r"(?<![\w/.{}$-])(?:src|scripts|docs|tests|notebooks)/[\w./*-]*[\w*/]")
FILE = re.compile(r"(?<![\w/.{}*$-])[A-Za-z][\w-]*\.(?:md|py|sh)\b(?![\w/*])")
WRITTEN = {"report.md", "tokens.md", "back.md", "multi.md", "table.md", "record.md"}  # by stages, into result folders


def python_files() -> list[Path]:
    """The modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a module below slug; "" for the package's face."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def code_lines(path: Path) -> int:
    """Lines that hold code: neither blank, nor a comment, nor part of a docstring."""
    text = path.read_text(encoding="utf-8")
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (
            tokenize.COMMENT,
            tokenize.NL,
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
        ):
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(held)


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every tracked source and document in these folders; "" stands for the repository's root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for path in listed:
        top = path.split("/")[0] if "/" in path else ""
        kind = path.endswith((".py", ".sh", ".md", ".ipynb")) and path not in NAME_OLD_WORDS
        if kind and top in folders and (ROOT / path).is_file():
            yield path, (ROOT / path).read_text(encoding="utf-8")


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(name with its class or outer function, definition) of every function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{inside}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield name, node
            yield from functions(node, f"{name}.")
        else:
            yield from functions(node, inside)


def imported(path: Path) -> Iterator[str]:
    """The modules below slug that a module imports, anywhere in it."""
    known = {name_of(p) for p in python_files()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("slug.") for a in node.names if a.name.startswith("slug."))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "slug":
            base = (node.module or "").removeprefix("slug").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                if base or inner in known:
                    yield inner if inner in known else base
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"relative import in line {node.lineno}"


def layer(name: str) -> int:
    """The number of a module's layer."""
    return next((i for i, layer in enumerate(LAYERS) if name.split(".")[0] in layer), -1)


def upward(name: str, target: str) -> bool:
    """Whether an import points up."""
    if name == "" or (name, target) in ALLOWED_UP:
        return False
    if name.split(".")[0] == "reports":
        return not REPORTS_READ.match(target)
    return layer(target) > layer(name) or layer(target) < 0


# ------------------------------------------------------------------------------------------- checks, each yields failures


def lengths() -> Iterator[str]:
    """Modules, stages, functions and the package within their limits."""
    for path in python_files():
        name = str(path.relative_to(PACKAGE))
        limit = LIMITS.get(name, LIMITS["module"])
        if lines(path) > limit:
            yield f"src/slug/{name} has {lines(path)} lines, at most {limit}"
        for function, node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LIMITS["function"] and f"{name}:{function}" not in LONG_FUNCTIONS:
                yield f"src/slug/{name}:{function} has {length} lines, at most {LIMITS['function']}"
    for path in stages():
        if lines(path) > LIMITS["stage"]:
            yield f"{path.relative_to(ROOT)} has {lines(path)} lines, at most {LIMITS['stage']}"
    whole = sum(map(code_lines, python_files()))
    if whole > LIMITS["package"]:
        yield f"src/slug has {whole} lines of code, at most {LIMITS['package']}"


def stages() -> list[Path]:
    return [p for folder in STAGE_FOLDERS for p in sorted((ROOT / "src" / folder).glob("*.py"))]


def parameters() -> Iterator[str]:
    """No function below cli takes the flags of a command line as `args`."""
    for path in python_files():
        if path.name == "cli.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if any(a.arg == "args" for a in given):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: a parameter called args"


def imports() -> Iterator[str]:
    """Imports point down."""
    for path in python_files():
        for target in sorted(set(imported(path))):
            if upward(name_of(path), target):
                yield f"src/slug: {name_of(path)} imports {target}"


def references() -> Iterator[str]:
    """Every file that a source or a document names is there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    known = {Path(p).name for p in listed} | WRITTEN
    for path, text in sources("", "src", "scripts", "docs", "tests", "notebooks", "data"):
        if path.startswith("tests/") and path.endswith(".py"):
            text = "\n".join(prose(text))  # tests make files of their own
        for number, line in enumerate(text.splitlines(), 1):
            for found in PATH.findall(line):
                if not any(ROOT.glob(found.rstrip("/."))):
                    yield f"{path}:{number}: {found} is not there"
            for found in FILE.findall(line):
                if found not in known:
                    yield f"{path}:{number}: there is no {found}"


def prose(text: str) -> Iterator[str]:
    """The docstrings and comments of a Python source, line by line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from (ast.get_docstring(node) or "").splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    yield from (token.string for token in tokens if token.type == tokenize.COMMENT)


def words() -> Iterator[str]:
    """No private words, in code or prose."""
    for path, text in sources("", "src", "scripts", "docs"):
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, better in WORDS.items():
                if found := re.search(pattern, line, re.I):
                    yield f"{path}:{number}: {found[0]!r}; write: {better}"


def help_texts() -> Iterator[str]:
    """No stage imports a slow package to answer --help."""
    for path in stages():
        command = [sys.executable, "-X", "importtime", str(path), "--help"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        slow = [m for m in SLOW if re.search(rf"\| +{m}$", done.stderr, re.M)]
        if done.returncode or slow:
            yield f"{path.relative_to(ROOT)} --help " + (f"imports {', '.join(slow)}" if slow else "fails")


def flags() -> Iterator[str]:
    """Every flag of the stages is explained and read by some code."""
    for failure in settings_reads.Source([*python_files(), *stages()]).unread():
        if failure.rpartition(" ")[2] not in READ_BY_NAME:
            yield failure


CHECKS = (lengths, parameters, imports, references, words, help_texts, flags)


def counts() -> str:
    """What was counted, in one line."""
    found = {str(p.relative_to(PACKAGE)): lines(p) for p in python_files()}
    longest, stage = max(found, key=found.__getitem__), max(stages(), key=lines)
    code = sum(map(code_lines, python_files()))
    return (
        f"src/slug: {code} lines of code, {sum(found.values())} with docstrings, comments and "
        f"blank lines, in {len(found)} modules; core/slug.py: {found['core/slug.py']}; "
        f"longest module: {longest}, {found[longest]}; longest stage: {stage.name}, {lines(stage)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[c.__name__ for c in CHECKS], help="these checks only")
    only = parser.parse_args().only
    print(counts())
    failed = False
    for check in CHECKS:
        if not only or check.__name__ in only:
            failures = list(check())
            failed |= bool(failures)
            print(f"{check.__name__}: {len(failures) or 'no'} failure{'s' * (len(failures) != 1)}")
            print("".join(f"  {failure}\n" for failure in failures), end="")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
