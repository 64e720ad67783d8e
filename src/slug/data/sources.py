"""Where the pairs of forget sets come from: LAION shards, a CSV or image folders.

A source is a list of units (`Shard`, `Table`, `Folder`). Each unit lists its rows whose captions hold a name, and opens its
pictures. Only the listing grows with LAION: `find_rows` of one file, which `slug.pool` may spread over processes.
"""

import contextlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

from slug.data.images import PICTURES
from slug.data.names import Matcher, plain_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError, brief
from slug.pool import LOCAL

WORTH_PROCESSES = 2**28  # bytes of metadata; less is read before other processes have started

Row = tuple[str, str, list[str]]  # (key of the picture, caption, names found)


class Unit(Protocol):
    """A part of a source."""

    @property
    def path(self) -> Path: ...
    @property
    def label(self) -> str: ...
    def rows(self, matcher: Matcher, threads: bool) -> list[Row]:
        """The rows whose captions hold a name, in order; `threads` lets Arrow use all cores."""

    def pictures(self) -> contextlib.AbstractContextManager[Callable[[str], bytes | None]]:
        """Context that gives a function from a key to the bytes of its picture, None where there is none."""


def find_rows(
    path: Path,
    matcher: Matcher,
    columns: list[str],  # to return, `caption` among them
    *,
    caption: str,
    where: Any = None,  # an Arrow expression that a row must satisfy as well
    form: Any = "parquet",  # or an Arrow file format
    threads: bool = True,  # let Arrow use all cores
) -> pa.Table:
    """The rows of a metadata file of any size whose captions hold a name.

    Arrow reads only the columns asked for, and passes on only rows that `matcher.screen()` and `where` let through; the
    matcher decides about these. Memory grows with the rows found, not with the file. Returns the columns unchanged and in
    row order, and `names`, the list of names found in each caption. Raises pa.ArrowException, OSError or KeyError if the
    file is damaged or lacks a column.
    """
    screen = matcher.screen()
    if screen is not None:
        named = pc.match_substring_regex(ds.field(caption), screen)
        where = named if where is None else where & named
    data = ds.dataset(str(path), format=form)
    # Read ahead just enough to keep the cores busy: memory must not depend on the number of batches in a file.
    scanner = data.scanner(columns, where, batch_size=2**16, batch_readahead=4, fragment_readahead=1, use_threads=threads)
    found, names = [], []
    for batch in scanner.to_batches():
        matched = [matcher.find(c or "") for c in batch[caption].to_pylist()]
        kept = [i for i, m in enumerate(matched) if m]
        if kept:
            found.append(batch.take(pa.array(kept)))
            names += [matched[i] for i in kept]
    table = pa.Table.from_batches(found, scanner.projected_schema)
    return table.append_column("names", pa.array(names, pa.list_(pa.string())))


def _named(path: Path, column: str, what: str, remedy: str, matcher: Matcher, **how: Any) -> list[Row]:
    """The rows of `find_rows`; a SlugError says that the file is not `what` it should be, and the remedy."""
    try:
        table = find_rows(path, matcher, [column, "caption"], caption="caption", **how)
    except (pa.ArrowException, OSError, KeyError) as err:
        raise SlugError(f"{path} is not {what} ({brief(err)}); {remedy}") from err
    return list(zip(*(table[c].to_pylist() for c in (column, "caption", "names")), strict=True))


def worthwhile(paths: list[Path], workers: int, distributor: str) -> int:
    """`workers`, or 0 where this process reads the files faster than others start on this machine."""
    small = distributor == LOCAL and sum(p.stat().st_size for p in paths) < WORTH_PROCESSES
    return 0 if small else workers


class Shard(NamedTuple):
    """A shard as img2dataset writes it: NNNNN.parquet with NNNNN.tar."""

    path: Path  # of the parquet file

    @property
    def label(self) -> str:
        return self.path.stem

    def rows(self, matcher: Matcher, threads: bool) -> list[Row]:
        success = ds.field("status") == "success"
        what, remedy = "the metadata img2dataset writes", "download the shard again"
        return _named(self.path, "key", what, remedy, matcher, where=success, threads=threads)

    @contextlib.contextmanager
    def pictures(self) -> Iterator[Callable[[str], bytes | None]]:
        path = self.path.with_suffix(".tar")
        try:
            with TarMembers(path) as tar:
                names = {name.rpartition(".")[0]: name for name in tar if name.rpartition(".")[2] in PICTURES}
                yield lambda key: tar[names[key]] if key in names else None
        except (tarfile.TarError, EOFError, OSError) as err:
            raise SlugError(f"{path} is not a whole tar file ({err}); download the shard again") from err


class Table(NamedTuple):
    """A CSV with the columns `image`, a file relative to the CSV's folder, and `caption`."""

    path: Path

    @property
    def label(self) -> str:
        return self.path.stem

    def rows(self, matcher: Matcher, threads: bool) -> list[Row]:
        form = ds.CsvFileFormat(
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types={"image": pa.string(), "caption": pa.string()}),
        )
        what, remedy = "a CSV with the columns image and caption", "see data/README.md"
        return _named(self.path, "image", what, remedy, matcher, form=form, threads=threads)

    @contextlib.contextmanager
    def pictures(self) -> Iterator[Callable[[str], bytes | None]]:
        yield lambda image: _content(self.path.parent / image)


class Folder(NamedTuple):
    """A folder of pictures of one name; the caption is the text of a .txt file beside the picture, or the name."""

    path: Path
    name: str  # as people write it

    @property
    def label(self) -> str:
        return self.path.name

    def rows(self, matcher: Matcher, threads: bool) -> list[Row]:
        out = []
        for path in sorted(self.path.iterdir()):
            if path.suffix.lower().lstrip(".") in PICTURES:
                text = path.with_suffix(".txt")
                caption = text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else self.name
                out.append((path.name, caption, [self.name]))
        return out

    @contextlib.contextmanager
    def pictures(self) -> Iterator[Callable[[str], bytes | None]]:
        yield lambda file: _content(self.path / file)


def _content(path: Path) -> bytes | None:
    """The bytes of a file, or None."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def shards(folder: Path) -> list[Unit]:
    """The shards of a folder, in order. SlugError if there is none."""
    found: list[Unit] = [Shard(p) for p in sorted(folder.glob("*.parquet")) if p.with_suffix(".tar").is_file()]
    if not found:
        raise SlugError(f"{folder} holds no shard (NNNNN.parquet with NNNNN.tar); run scripts/download_laion400m.sh")
    return found


def folders(root: Path, names: list[str]) -> list[Unit]:
    """The image folders root/{name}/; `root` itself for a single name without a folder. SlugError if one is missing."""
    if len(names) == 1 and not (root / names[0]).is_dir():
        return [Folder(root, plain_name(names[0]))]
    missing = [n for n in names if not (root / n).is_dir()]
    if missing:
        raise SlugError(
            f"{root} holds no folder {', '.join(missing)}; put the pictures of each name into a folder of its own"
        )
    return [Folder(root / n, plain_name(n)) for n in names]
