"""Paths, safe reads and writes, and hashes."""

import contextlib
import csv
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slug.errors import SlugError, brief

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]  # of the repository; relative paths start here, whatever the working directory

LONGEST_STEM = 120  # bytes of a name in a file name, which holds model, method and layer besides, in 255 bytes


def resolve(path: str | Path) -> Path:
    """A path given by the user, absolute: `~` is expanded, and a relative path starts at the repository root."""
    return Path(os.path.normpath(ROOT / Path(path).expanduser()))


def existing(path: str | Path, what: str, remedy: str) -> Path:
    """`resolve(path)`; a SlugError names what is missing, and the remedy."""
    path = resolve(path)
    if not path.exists():
        raise SlugError(f"{what} not found: {path}; {remedy}")
    return path


def safe_name(text: str) -> str:
    """Text as part of a file name: all characters but letters and digits of any script, `.`, `_` and `-` become `-`."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def inside(folder: str | Path, name: object) -> Path:
    """The path of the file `name` in a folder, where `name` was read from a file, such as an index of weight files.

    SlugError unless it is one plain file name: a path with folders, `..`, or a drive could lead anywhere.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
        raise SlugError(
            f"a file in {folder} names {brief(repr(name), 80)}, which is no file name; get a sound copy of the folder"
        )
    return Path(folder) / name


def _owner_is_gone(path: Path) -> bool:
    """Whether a temporary file or folder was made on this machine, by a process that does not exist any more."""
    owner = re.search(rf"\.{re.escape(platform.node())}\.(\d+)\.(?:part|old)$", path.name)
    try:
        if owner:
            os.kill(int(owner[1]), 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it belongs to another user
        pass
    return False


def remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it, even where its subfolders are read-only. It may be missing."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def plain_name(name: str) -> str:
    """A name as people write it, in Unicode's composed form (NFC): `Elon_Musk` -> `Elon Musk`."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split())


def name_stem(name: str) -> str:
    """The name of a person or thing as part of a file name: `Elon_Musk` for `Elon Musk`, `AC=2FDC` for `AC/DC`.

    Two names have the same stem only if their plain names are the same. Letters, marks and digits of any script stay, and
    `.`, `-` and apostrophes; other characters become `=` and the two hex digits of each of their UTF-8 bytes, as a `.` or
    `-` does in front, which would hide the file or read as a flag. SlugError: no letter and no digit, or too long.
    """
    plain = plain_name(name)
    if not any(c.isalnum() for c in plain):  # it would be a folder itself, or every folder of a parent
        raise SlugError(f"{name!r} is no name: it has neither a letter nor a digit; give a name as captions write it")
    stem = ""
    for c in plain.replace(" ", "_"):
        kept = unicodedata.category(c)[0] in "LMN" or c in "_.-'\u2019"
        stem += (
            c if kept and (stem or c not in ".-") else "".join(f"={byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))
        )
    if len(stem.encode("utf-8", "surrogatepass")) > LONGEST_STEM:
        raise SlugError(f"the name {name[:40]!r}... is longer than the {LONGEST_STEM} bytes that file names have for it")
    return stem


def checked_name(text: str) -> str:
    """A name that a user gave, unchanged. SlugError if it cannot be one (see name_stem)."""
    name_stem(text)
    return text


@functools.cache  # once for each folder in a process: a folder may hold 100,000 pictures
def remove_killed(folder: Path) -> None:
    """Remove what `replacing` and `replacing_folder` left in a folder when their process, on this machine, was killed."""
    for path in folder.glob(".*.part"):
        if _owner_is_gone(path):
            with contextlib.suppress(OSError):
                remove(path)


def recover_folder(path: str | Path) -> None:
    """Undo what a killed `replacing_folder(path)` left: the folder comes back where it was renamed, the rest is removed."""
    path = Path(os.path.realpath(path))
    for left in [p for p in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.old")) if _owner_is_gone(p)]:
        if path.exists():
            remove(left)
        else:
            left.rename(path)


def _cannot_write(path: Path, err: Exception) -> SlugError | None:
    """What to say if `err` came from writing `path`; None if it did not."""
    # On a full disk safetensors raises an error of its own, and torch a RuntimeError from its zip writer.
    if isinstance(err, RuntimeError) and "inline_container" not in str(err) and "StreamWriter" not in str(err):
        return None
    said = getattr(err, "strerror", None) or brief(err)
    return SlugError(f"cannot write {path}: {said}; check the folder's permissions and space")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces `path`, on failure it is removed. SlugError if it cannot be written."""
    from safetensors import SafetensorError

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_killed(path.parent)
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as err:
        said = _cannot_write(path, err)
        if said is None:
            raise
        raise said from err
    finally:
        with contextlib.suppress(OSError):  # fails below a regular file, and would hide the message above
            temporary.unlink()


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """`replacing` for a folder: the body makes a folder at the path yielded, which then replaces the folder at `path`.

    A link at `path` is followed. If the process is killed between its two renames, `recover_folder` brings the folder back.
    """
    from safetensors import SafetensorError

    path = Path(os.path.realpath(path))
    temporary, retired = (path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{e}") for e in ("part", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_killed(path.parent)
        recover_folder(path)
        if path.exists() and not path.is_dir():
            raise SlugError(f"{path} is a file; choose another folder")
        remove(temporary)
        yield temporary
        while True:
            with contextlib.suppress(FileNotFoundError):
                path.rename(retired)
            try:
                temporary.rename(path)
                break
            except OSError as err:  # another process has put its folder there in between: it is replaced, too
                if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                remove(retired)
    except (OSError, SafetensorError, RuntimeError) as err:
        said = _cannot_write(path, err)
        if said is None:
            raise
        raise said from err
    finally:
        with contextlib.suppress(OSError):
            remove(temporary)
            if path.exists():
                remove(retired)
            else:
                retired.rename(path)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Context in which no other process of this machine is in the same context of a folder; it waits for those that are.

    The folder is made; on exit it is removed if it is empty, and the body may remove it.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise _cannot_write(folder, err) or err from err
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                break
        except FileNotFoundError:  # whoever was there before has removed it
            pass
        os.close(handle)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(handle)


def can_be_folder(path: str) -> bool:
    """Whether there is a folder at a path, or may be one: neither it nor what it lies in is a file."""
    whole = resolve(path)
    return not any(p.exists() and not p.is_dir() for p in (whole, *whole.parents))


def check_writable(folder: str | Path) -> Path:
    """Make a folder and check that it can be written, before any long work. Returns its path; SlugError if it cannot."""
    folder = resolve(folder)
    probe = folder / ".writable"
    write_text(probe, "")
    probe.unlink(missing_ok=True)  # another process may have been faster
    return folder


def place(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True, default=str) + "\n")


def read_text(path: str | Path, remedy: str = "get it again") -> str:
    """The text of a UTF-8 file, without a byte order mark. SlugError if it cannot be read or is no UTF-8 text."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as err:
        raise SlugError(f"cannot read {path}: {err.strerror}; {remedy}") from err
    except UnicodeDecodeError as err:
        raise SlugError(f"{path} is not UTF-8 text ({err.reason}, byte {err.start}); {remedy}") from err
    if "\0" in text:
        raise SlugError(f"{path} is not a text file: it contains zero bytes; {remedy}")
    return text


def read_csv(path: str | Path, columns: Sequence[str], remedy: str = "get it again") -> list[dict[str, str]]:
    """The rows of a CSV with a header, [{column: text}]. SlugError if it is damaged or a row lacks one of `columns`."""
    reader, rows = csv.DictReader(read_text(path, remedy).splitlines(keepends=True)), []
    try:
        rows = list(reader)
    except csv.Error as err:
        raise SlugError(f"{path}, line {reader.line_num}, is no CSV ({err}); {remedy}") from err
    bad = next((n for n, row in enumerate(rows, 2) if any(row.get(c) is None for c in columns)), None)
    if bad or not rows:
        what = f"no {', '.join(columns)} in row {bad}" if bad else f"no rows of {', '.join(columns)}"
        raise SlugError(f"{path} has {what}; {remedy}")
    return rows


def read_json(path: str | Path) -> Any:
    """Read JSON. SlugError if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        raise SlugError(f"cannot read {path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:  # the second: lists in lists, a thousand deep
        raise SlugError(f"{path} is not valid JSON ({brief(err)}); delete it and run its stage again") from err


def read_object(path: str | Path) -> dict[str, Any]:
    """Read JSON that is an object, as records and fingerprints are. SlugError if it is missing, damaged or no object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise SlugError(f"{path} holds no JSON object; delete it and run its stage again")
    return found


def read_tensors(path: str | Path, remedy: str, **how: Any) -> Any:
    """Read a .pt file of plain tensors; `how` goes to torch.load. SlugError if it is missing, damaged or would run code."""
    import torch  # here: most users of this module need no torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu", **how)
    except Exception as err:  # weights_only refuses files with many kinds of errors
        raise SlugError(f"{path} is damaged or no plain file of tensors ({brief(err)}); {remedy}") from err


def file_hash(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def tensor_hash(tensors: "Mapping[str, torch.Tensor]") -> str:
    """sha256 of the names, shapes and float32 values of {name: tensor}, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().float().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
