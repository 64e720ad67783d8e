"""Paths, safe writes and hashes."""

import contextlib
import csv
import functools
import hashlib
import json
import os
import platform
import re
import shutil
from pathlib import Path

from slug.errors import SlugError, brief

ROOT = Path(__file__).resolve().parents[2]  # the repository: relative paths are taken from here, never from the cwd


def resolve(path):
    """A path given by the user: `~` expanded, a relative one taken from the repository root."""
    return Path(os.path.normpath(ROOT / Path(path).expanduser()))


def existing(path, what, remedy):
    """`resolve(path)`, or a SlugError that names what is missing and the remedy."""
    path = resolve(path)
    if not path.exists():
        raise SlugError(f"{what} not found: {path}; {remedy}")
    return path


def safe_name(text):
    """A string as part of a file name: everything but letters and digits of any script, `.`, `_` and `-` becomes `-`."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


@functools.cache  # once a folder and process: a folder may hold 100,000 pictures
def remove_killed(folder):
    """Remove from a folder the temporary files of `replacing` whose process, of this machine, was killed."""
    for path in folder.glob(".*.part"):
        owner = re.search(rf"\.{re.escape(platform.node())}\.(\d+)\.part$", path.name)
        try:
            if owner:
                os.kill(int(owner[1]), 0)  # no signal: only asks whether the process is there
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except OSError:  # somebody else's
            pass


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; on success it takes the name `path`, on failure it is removed.

    Raises SlugError if the folder cannot be written.
    """
    from safetensors import SafetensorError

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_killed(path.parent)
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as err:
        # What libraries make of a full disk: safetensors an error of its own, torch a RuntimeError of its zip writer.
        if isinstance(err, RuntimeError) and "inline_container" not in str(err) and "StreamWriter" not in str(err):
            raise
        said = getattr(err, "strerror", None) or brief(err)
        raise SlugError(f"cannot write {path}: {said}; check the folder's permissions and space") from err
    finally:
        with contextlib.suppress(OSError):  # below a regular file even this fails, and would hide the message above
            temporary.unlink()


@contextlib.contextmanager
def replacing_folder(path):
    """As `replacing`, of a folder: yield a path beside `path` for the body to make a folder at; a folder at `path` goes."""
    path = Path(path)
    temporary, retired = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)
            path.rename(retired)
        temporary.rename(path)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as err:
        raise SlugError(f"cannot write {path}: {err.strerror or err}; check the folder's permissions and space") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder):
    """Make a folder and show that it can be written, before any long work. SlugError if it cannot; returns its path."""
    folder = resolve(folder)
    probe = folder / ".writable"
    write_text(probe, "")
    probe.unlink(missing_ok=True)  # of several processes another one may have been faster
    return folder


def place(source, target):
    """Copy a file; a plot as one of 128 colours, a quarter of the size, since what is committed stays in the history.

    Args:
        target: a path; `source` itself to make a plot small where it lies.
    """
    with replacing(target) as temporary:
        if source.suffix == ".png":
            from PIL import Image

            with Image.open(source) as image:
                plain = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
                plain.save(temporary, format="PNG", optimize=True)
        else:
            shutil.copyfile(source, temporary)


def write_text(path, text):
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, data):
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True, default=str) + "\n")


def read_text(path, remedy="get it again"):
    """The text of a UTF-8 file, a byte order mark apart; SlugError if it cannot be read or is no such text."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as err:
        raise SlugError(f"cannot read {path}: {err.strerror}; {remedy}") from err
    except UnicodeDecodeError as err:
        raise SlugError(f"{path} is not UTF-8 text ({err.reason}, byte {err.start}); {remedy}") from err
    if "\0" in text:
        raise SlugError(f"{path} is no text, it holds zero bytes; {remedy}")
    return text


def read_csv(path, columns, remedy="get it again"):
    """The rows of a CSV with a header, [{column: text}]; SlugError if it is damaged or a row lacks one of `columns`."""
    reader, rows = csv.DictReader(read_text(path, remedy).splitlines(keepends=True)), []
    try:
        rows = list(reader)
    except csv.Error as err:
        raise SlugError(f"{path}, line {reader.line_num}, is no CSV ({err}); {remedy}") from err
    bad = next((n for n, row in enumerate(rows, 2) if any(row.get(c) is None for c in columns)), None)
    if bad or not rows:
        raise SlugError(
            f"{path} has {'a short row, number ' + str(bad) if bad else 'no rows'}, of {', '.join(columns)}; {remedy}"
        )
    return rows


def read_json(path):
    """Read JSON; SlugError if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        raise SlugError(f"cannot read {path}: {err.strerror}") from err
    except ValueError as err:
        raise SlugError(f"{path} is not valid JSON ({err}); delete it and run its stage again") from err


def read_tensors(path, remedy, **how):
    """What a .pt file of plain tensors holds; SlugError if it is missing, damaged or holds anything that would be executed.

    Args:
        how: further arguments of torch.load.
    """
    import torch  # here: most users of this module need no torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu", **how)
    except Exception as err:  # what weights_only refuses has many kinds
        raise SlugError(f"{path} is damaged or no plain file of tensors ({brief(err)}); {remedy}") from err


def file_hash(path):
    """sha256 of a file's bytes, as hex."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def tensor_hash(tensors):
    """sha256 over names, shapes and float32 values of {name: tensor}, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().float().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
