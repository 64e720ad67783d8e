"""Where the pairs of forget sets come from: LAION shards, a CSV or image folders.

A source is a list of units (`Shard`, `Table`, `Folder`). Each unit lists its rows whose captions hold a name, and opens its
pictures. Only the listing grows with LAION: `find_rows` of one file, which `slug.pool` may spread over processes.
"""

import contextlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from slug import files, progress
from slug.data.images import is_system, listed, told
from slug.data.names import Matcher, plain_name
from slug.data.pairs import TarMembers, caption_of, pictures_of
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
    columns: list[str],  # to return, the caption's among them
    *,
    caption: str,
    where: Any = None,  # an Arrow expression that a row must satisfy as well
    form: Any = "parquet",  # or an Arrow file format
    threads: bool = True,  # let Arrow use all cores
) -> pa.Table:
    """The rows of a metadata file of any size whose captions hold a name.

    Arrow reads only the columns asked for, and passes on only rows that `matcher.screen()` and `where` let through; the
    matcher decides about these. Memory grows with the rows found, not with the file. Returns the columns unchanged, but
    captions as text, in row order, and `names`, the list of names found in each caption. Raises pa.ArrowException, OSError
    or KeyError if the file is damaged or lacks a column.
    """
    data = ds.dataset(str(path), format=form)
    lacking = [c for c in columns if c not in data.schema.names]
    if lacking:
        raise KeyError(f"it has no column {', '.join(lacking)}, only {', '.join(data.schema.names)[:80]}")
    views = [c for c in columns if data.schema.field(c).type in (pa.string_view(), pa.binary_view())]
    if views:  # Arrow cannot filter them
        raise KeyError(f"its column {views[0]} is of the type {data.schema.field(views[0]).type}; write it as string")
    screen = matcher.screen()
    if screen is not None:
        named = pc.match_substring_regex(as_text(data.schema, caption), screen)
        where = named if where is None else where & named
    wanted = {c: as_text(data.schema, c) if c == caption else ds.field(c) for c in columns}
    # Read ahead just enough to keep the cores busy: memory must not depend on the number of batches in a file.
    scanner = data.scanner(wanted, where, batch_size=2**16, batch_readahead=4, fragment_readahead=1, use_threads=threads)
    found, names = [], []
    for batch in scanner.to_batches():
        matched = [matcher.find(c or "") for c in batch[caption].to_pylist()]
        kept = [i for i, m in enumerate(matched) if m]
        if kept:
            found.append(batch.take(pa.array(kept)))
            names += [matched[i] for i in kept]
    table = pa.Table.from_batches(found, scanner.projected_schema)
    return table.append_column("names", pa.array(names, pa.list_(pa.string())))


def as_text(schema: pa.Schema, column: str) -> Any:
    """An Arrow expression: a column as text, whether a tool wrote it as text, bytes, categories or numbers."""
    kind = schema.field(column).type
    field = ds.field(column)
    if pa.types.is_floating(kind):  # integers, where another tool filled gaps in their column
        field, kind = field.cast(pa.int64()), pa.int64()
    return field if kind == pa.string() else field.cast(pa.string())


def _named(path: Path, column: str, what: str, remedy: str, matcher: Matcher, **how: Any) -> list[Row]:
    """The rows of `find_rows`; a SlugError says that the file is not `what` it should be, and the remedy."""
    try:
        table = find_rows(path, matcher, [column, "caption"], caption="caption", **how)
    except (pa.ArrowException, OSError, KeyError) as err:
        said = err.args[0] if isinstance(err, KeyError) else err  # a KeyError shows its text in quotes
        raise SlugError(f"{path} is not {what} ({brief(said)}); {remedy}") from err
    rows = zip(*(table[c].to_pylist() for c in (column, "caption", "names")), strict=True)
    return [(_plain_key(key), caption, found) for key, caption, found in rows if key is not None]


def _plain_key(key: Any) -> str:
    """A key as text: a table may hold it as bytes, or as a number."""
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


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
        what = "the metadata img2dataset writes"
        remedy = "give it these columns (key, caption, status), or download the shard again"
        try:
            schema = pq.read_schema(self.path)
            # A tool may have dropped `status`; what was not fetched has no picture in the tar.
            success = as_text(schema, "status") == "success" if "status" in schema.names else None
        except (pa.ArrowException, OSError) as err:
            raise SlugError(f"{self.path} is not {what} ({brief(err)}); {remedy}") from err
        return _named(self.path, "key", what, remedy, matcher, where=success, threads=threads)

    @contextlib.contextmanager
    def pictures(self) -> Iterator[Callable[[str], bytes | None]]:
        path = self.path.with_suffix(".tar")
        try:
            with TarMembers(path) as tar:
                member = _finder(pictures_of(tar)[0])
                yield lambda key: tar[found] if (found := member(key)) else None
        except (tarfile.TarError, EOFError, OSError) as err:
            raise SlugError(f"{path} is not a whole tar file ({err}); download the shard again") from err


def _finder(members: Mapping[str, str]) -> Callable[[str], str | None]:
    """A function from a table's key to the tar's member of it, given {key in the tar: member}; None where there is none.

    A key that the tar spells otherwise is found where only one of its keys is meant: the tar may have folders, and a table
    may hold numbers, without zeros in front.
    """

    def loose(key: str) -> str:
        name = key.rpartition("/")[2]
        return str(int(name)) if name.isdecimal() else name

    meant: dict[str, list[str]] = {}
    for key, member in members.items():
        meant.setdefault(loose(key), []).append(member)

    def find(key: str) -> str | None:
        if key in members:
            return members[key]
        candidates = meant.get(loose(key), ())
        return candidates[0] if len(candidates) == 1 else None

    return find


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
        try:
            return _named(self.path, "image", what, remedy, matcher, form=form, threads=threads)
        except SlugError:
            files.read_text(self.path, "save it as UTF-8, e.g. with iconv")  # raises where this is what is wrong
            raise

    @contextlib.contextmanager
    def pictures(self) -> Iterator[Callable[[str], bytes | None]]:
        yield lambda image: _content(self.path.parent / image)


class Folder(NamedTuple):
    """A folder of pictures of one name; the caption is the text of a .txt file beside the picture, or the name."""

    path: Path
    name: str  # as people write it
    deep: bool = True  # with its subfolders

    @property
    def label(self) -> str:
        return self.path.name

    def rows(self, matcher: Matcher, threads: bool) -> list[Row]:
        found, left_out = listed(self.path, deep=self.deep)
        if left_out:
            progress.write(f"note: {self.path}: {len(found)} pictures by their endings; left out: {told(left_out)}")
        return [(str(path.relative_to(self.path)), self._caption(path), [self.name]) for path in found]

    def _caption(self, path: Path) -> str:
        content = _content(path.with_suffix(".txt")) or _content(path.with_suffix(".TXT"))
        return caption_of(content).strip() or self.name if content else self.name

    @contextlib.contextmanager
    def pictures(self) -> Iterator[Callable[[str], bytes | None]]:
        yield lambda file: _content(self.path / file)


def _content(path: Path) -> bytes | None:
    """The bytes of a file, or None."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: a zero byte in its name
        return None


def shards(folder: Path) -> list[Unit]:
    """The shards of a folder, in order; a table or a tar without the other is told. SlugError if there is no shard."""
    tables, tars = ({p.stem for p in folder.glob(f"*.{kind}") if not is_system(p.name)} for kind in ("parquet", "tar"))
    alone = [f"{n}.parquet has no tar" for n in sorted(tables - tars)]
    alone += [f"{n}.tar has no table" for n in sorted(tars - tables)]
    some = ", ".join(alone[:4]) + (f", and {len(alone) - 4} more" if len(alone) > 4 else "")
    if not tables & tars:
        said = f" ({some})" if alone else ""
        raise SlugError(f"{folder} holds no shard, NNNNN.parquet with NNNNN.tar{said}; run scripts/download_laion400m.sh")
    if alone:
        progress.write(f"note: {folder}: {len(alone)} files are left out: {some}")
    return [Shard(folder / f"{n}.parquet") for n in sorted(tables & tars)]


def folders(root: Path, names: list[str]) -> list[Unit]:
    """The image folders root/{name}/, however a folder spells its name; `root` itself for a single name without a folder.

    SlugError if one is missing, or if several folders spell a name.
    """
    by_name: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.iterdir() if p.is_dir() and not is_system(p.name)):
        by_name.setdefault(plain_name(path.name).casefold(), []).append(path)
    found, missing = [], []
    for name in names:
        spelled = by_name.get(plain_name(name).casefold(), [])
        exact = [p for p in spelled if p.name == name] or [p for p in spelled if plain_name(p.name) == plain_name(name)]
        chosen = exact or spelled
        if len(chosen) > 1:
            called = " and ".join(p.name for p in chosen)
            raise SlugError(f"{root} holds the folders {called}, which both mean {name}; put their pictures into one")
        missing += [] if chosen else [name]
        found += [Folder(p, plain_name(name)) for p in chosen]
    if len(names) == 1 and missing:
        return [Folder(root, plain_name(names[0]), deep=False)]
    if missing:
        raise SlugError(
            f"{root} holds no folder {', '.join(missing)}; put the pictures of each name into a folder of its own"
        )
    return list(found)
