"""The one way in which long experiments resume: every finished piece of work is a file of rows, merged into one table.

A piece of work has a key (a name and a variant; a name, a method and a test) and a mark: a text that says all that its rows
depend on. Rows with another mark are stale and are never taken. A run that is stopped loses the piece in progress only.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from slug import files, pool
from slug.errors import SlugError, brief

Row = dict[str, Any]


def read_table(path: Path, remedy: str, schema: pa.Schema | None = None) -> pd.DataFrame:
    """A Parquet table. SlugError if it is damaged; where `schema` is given, if it has other columns, or no rows."""
    columns = schema.names if schema else ()
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as err:
        raise SlugError(f"{path} is not a whole Parquet file ({brief(err)}); {remedy}") from err
    lacks = next((c for c in columns if c not in frame), None)
    if lacks or (columns and frame.empty):
        raise SlugError(f"{path} has {'no column ' + lacks if lacks else 'no rows'}; {remedy}")
    try:
        pa.Table.from_pandas(frame, schema, preserve_index=False) if schema else None
    except (pa.ArrowException, ValueError, TypeError) as err:
        raise SlugError(f"{path} has other things in a column than it should ({brief(err)}); {remedy}") from err
    return frame


class Parts:
    """Rows of finished pieces of work: {folder}/parts/{key}.parquet, and the table {folder}/runs.parquet."""

    def __init__(self, folder: Path, key: Sequence[str], mark: str, schema: pa.Schema | None = None) -> None:
        """`key` are the columns that tell pieces of work apart, `mark` is the one that says what rows depend on; `schema`
        gives the types of all columns, and None takes those of the rows."""
        self.folder, self.key, self.mark, self.schema = folder, list(key), mark, schema
        self.table = folder / "runs.parquet"

    def path(self, *key: str) -> Path:
        """The file of a piece of work."""
        return self.folder / "parts" / f"{files.safe_name('-'.join(k.replace(' ', '_') for k in key))}.parquet"

    def write(self, rows: Sequence[Row], *key: str) -> None:
        """Write the rows of a piece of work, whole or not at all."""
        table = pa.Table.from_pylist(list(rows), self.schema) if self.schema else pa.Table.from_pandas(pd.DataFrame(rows))
        with files.replacing(self.path(*key)) as temporary:
            pq.write_table(table, temporary)

    def rows(self, mark: str, *key: str) -> list[Row]:
        """The rows of a piece of work where its file is there, whole, and has this mark; else none."""
        try:
            rows = pq.read_table(self.path(*key), schema=self.schema).to_pylist()
        except (OSError, pa.ArrowException):
            return []
        return rows if all(row[self.mark] == mark for row in rows) else []

    def merge(self, rows: Sequence[Row]) -> None:
        """Write these rows as the table; the parts stay."""
        with files.replacing(self.table) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), self.schema), temporary)

    def collect(self, remedy: str) -> pd.DataFrame:
        """All rows: those of the table, and those of the parts in place of earlier ones of the same key. Writes the table
        and removes the parts only after that, so that a kill in between loses nothing."""
        empty = pd.DataFrame(columns=[*self.key, self.mark])
        frame = read_table(self.table, remedy) if self.table.is_file() else empty
        parts = sorted((self.folder / "parts").glob("*.parquet"), key=lambda p: p.stat().st_mtime_ns)
        for part in parts:
            fresh = read_table(part, remedy)
            old = pd.MultiIndex.from_frame(frame[self.key]).isin(pd.MultiIndex.from_frame(fresh[self.key]))
            frame = pd.concat([f for f in (frame[~old], fresh) if len(f)], ignore_index=True)
        if parts:
            with files.replacing(self.table) as temporary:
                frame.to_parquet(temporary, index=False)
            for part in parts:
                part.unlink(missing_ok=True)
        return frame


def _with_threads(work: Callable, threads: int, item: Any) -> Any:
    if threads:
        torch.set_num_threads(threads)
    return work(item)


def deal(work: Callable, items: Sequence[Any], *, jobs: int = 1, engine: str = pool.LOCAL) -> Iterator[Any]:
    """Yield work(item) of every item in order, done by `jobs` processes, each with its share of this machine's threads; they
    import `work`, a function of a module or a partial of one. For `engine` see pool.spread."""
    threads = max(1, torch.get_num_threads() // jobs) if jobs > 1 else 0
    yield from pool.spread(functools.partial(_with_threads, work, threads), items, workers=jobs, distributor=engine)
