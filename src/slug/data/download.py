"""Download of pictures into shards, by img2dataset: all rows of LAION's metadata, or only those that hold a name."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from slug import files, pool, progress
from slug.data import sources
from slug.data.names import Matcher, plain_name
from slug.data.settings import Download
from slug.errors import SlugError, brief

# What LAION's metadata calls its columns, the names of later releases after those of LAION-400M.
NEEDED = {"URL": ("URL", "url"), "TEXT": ("TEXT", "caption", "text")}
EXTRAS = ("NSFW", "similarity", "LICENSE")  # kept where all files have them
ADDRESS = r"^\s*(?i:https?)://"  # anything else, such as file:, would put files of this machine into shards
ROWS_PER_SHARD = 10_000


class Fetched(NamedTuple):
    """The outcome of a download, over all its shards."""

    shards: int
    rows: int  # asked for
    pictures: int  # in the tars
    failed: int  # no answer in time, or a server error
    broken: int  # the answer is no picture
    refused: int = 0  # rows left out before, since their address is neither http nor https


def metadata_files(folder: Path) -> list[Path]:
    """The metadata files of a folder, in order. SlugError if there is none, or one is damaged or lacks a column."""
    folder = files.existing(folder, "folder of LAION's metadata", "see data/README.md, or give --metadata-dir")
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise SlugError(f"{folder} holds no metadata (*.parquet); see data/README.md")
    for path in paths:
        columns_of(path)
    return paths


def columns_of(path: Path) -> dict[str, str]:
    """{URL, TEXT: what the metadata file calls this column}. SlugError: it is damaged, or lacks one."""
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as err:
        raise _not_metadata(path, err) from err
    found = {c: next((n for n in spelled if n in names), "") for c, spelled in NEEDED.items()}
    missing = [f"{c} (nor {', '.join(NEEDED[c][1:])})" for c, name in found.items() if not name]
    if missing:
        raise _not_metadata(path, f"no column {' and no '.join(missing)}; it has {', '.join(names)}")
    return found


def _fetchable(paths: list[Path], folder: Path) -> tuple[list[Path], dict[str, Any], int]:
    """The metadata that img2dataset may be given: files with addresses of the web only, their columns, and rows left out.

    The files themselves, where all are alike and every address is http or https; else copies in `folder` of the rows that
    are, with the columns that LAION-400M has. Returns (files, settings of img2dataset, rows left out). SlugError: no row is
    left.
    """
    schemas, names = [pq.read_schema(p) for p in paths], [columns_of(p) for p in paths]
    extras = [c for c in EXTRAS if all(c in s.names for s in schemas)]
    of_web = [pc.match_substring_regex(sources.as_text(s, n["URL"]), ADDRESS) for s, n in zip(schemas, names, strict=True)]
    try:
        rows = sum(pq.read_metadata(p).num_rows for p in paths)
        refused = rows - sum(ds.dataset(str(p)).count_rows(filter=w) for p, w in zip(paths, of_web, strict=True))
        if rows and refused == rows:
            raise SlugError(f"none of the {rows} rows in {paths[0].parent} has an http or https address; get them again")
        plain = all(s.field(n[c]).type == pa.string() for s, n in zip(schemas, names, strict=True) for c in n)
        if plain and not refused and all(n == names[0] for n in names):
            return paths, {"url_col": names[0]["URL"], "caption_col": names[0]["TEXT"], "save_additional_columns": extras}, 0
        copies = [folder / f"{i:05d}.parquet" for i in range(len(paths))]
        for path, copy, schema, name, good in zip(paths, copies, schemas, names, of_web, strict=True):
            wanted = {c: sources.as_text(schema, n) for c, n in name.items()} | {c: ds.field(c) for c in extras}
            scanner = ds.dataset(str(path)).scanner(wanted, good, batch_size=2**16)
            with files.replacing(copy) as temporary, pq.ParquetWriter(temporary, scanner.projected_schema) as out:
                for batch in scanner.to_batches():
                    out.write_batch(batch)
    except pa.ArrowException as err:
        raise _not_metadata(paths[0].parent, err) from err
    if refused:
        progress.write(f"note: {refused} of {rows} rows are left out: their address is neither http nor https")
    return copies, {"url_col": "URL", "caption_col": "TEXT", "save_additional_columns": extras}, refused


def _not_metadata(path: Path, why: object) -> SlugError:
    return SlugError(f"{path} is not LAION's metadata ({' '.join(str(why).split())[:160]}); get the file again")


def fetch(metadata: Path, out: Path, how: Download) -> Fetched:
    """Fetch the pictures of all rows of a metadata folder into shards of 10,000 rows each (data/README.md).

    Finished shards are left alone, with the pictures that failed in them, so the same call resumes a download that was
    stopped. A shard without a single picture (no network) counts as unfinished. SlugError: the metadata cannot be used, the
    distributor is not installed, `out` cannot be written, a shard could not be finished, or no picture could be fetched.
    """
    for package in ("img2dataset", *(() if how.distributor == pool.LOCAL else (how.distributor,))):
        if importlib.util.find_spec(package) is None:
            raise SlugError(f"{package} is not installed; run: pip install {package}")
    paths, out = metadata_files(metadata), files.check_writable(out)
    paths, columns, refused = _fetchable(paths, out / ".metadata")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version
    import img2dataset  # here: it takes seconds

    interrupt = signal.getsignal(signal.SIGINT)
    try:
        img2dataset.download(
            url_list=str(paths[0].parent),
            input_format="parquet",
            **columns,
            output_folder=str(out),
            output_format="webdataset",
            number_sample_per_shard=ROWS_PER_SHARD,
            processes_count=how.processes,
            thread_count=how.threads,
            image_size=how.image_size,
            retries=how.retries,
            timeout=how.timeout,
            distributor=how.distributor,
            incremental_mode="incremental",
        )
    except SystemExit as end:  # img2dataset answers Ctrl-C with exit code 0
        raise KeyboardInterrupt from end
    except Exception as err:  # img2dataset, Spark and Ray raise many kinds
        raise SlugError(f"img2dataset failed ({brief(err)}); run the same command again") from err
    finally:
        signal.signal(signal.SIGINT, interrupt)
    return _outcome(paths, out)._replace(refused=refused)


def _outcome(paths: list[Path], out: Path) -> Fetched:
    """Add up the shards that these metadata files make. SlugError if one is missing, or all are empty."""
    shards = sum(-(-pq.read_metadata(p).num_rows // ROWS_PER_SHARD) for p in paths)
    stats = {n: out / f"{n:05d}_stats.json" for n in range(shards)}
    missing = [n for n, path in stats.items() if not path.is_file()]
    if missing:
        raise SlugError(f"{len(missing)} of {shards} shards in {out} are not finished; run the same command again")
    found = {n: files.read_json(path) for n, path in stats.items()}
    for n, stat in found.items():
        if not stat["successes"]:
            stats[n].unlink()
    keys = ("count", "successes", "failed_to_download", "failed_to_resize")
    total = Fetched(shards, *(sum(stat[k] for stat in found.values()) for k in keys))
    if not total.pictures:
        errors = [e for stat in found.values() for e in stat["status_dict"]]
        why = f"{' '.join(errors[0].split())[:120]}" if errors else "no rows"
        raise SlugError(f"none of {total.rows} pictures could be fetched ({why}); check the network, and run it again")
    return total


def named_rows(
    metadata: Path,
    names: list[str],
    out: Path,
    *,
    known: Sequence[str] = (),
    limit: int = 1500,
    workers: int = 0,
    distributor: str = pool.LOCAL,
) -> dict[str, int]:
    """Write the metadata rows that hold a name into `out`, one file for each metadata file and in the same form.

    Takes the first `limit` rows of each name, in file and row order. Files that are there already are not searched again,
    so the same call resumes a run that was stopped. Returns {name: rows}. SlugError: the metadata cannot be used, or the
    distributor is not installed.
    """
    paths = metadata_files(metadata)
    given = {plain_name(n): n for n in names}
    counts = dict.fromkeys(names, 0)
    parts = [out / f"{i:05d}.parquet" for i in range(len(paths))]
    ready = [p for p in parts if p.is_file()]
    workers = sources.worthwhile(paths, workers, distributor)
    find = functools.partial(_named, matcher=Matcher(list(given), known), threads=workers <= 1)
    ahead = pool.spread(find, paths[len(ready) :], workers=workers, distributor=distributor)
    with contextlib.closing(ahead), progress.bar(total=len(paths), desc="metadata", unit="file") as bar:
        for part in parts:
            if min(counts.values()) >= limit:
                break
            table = pq.read_table(part) if part in ready else next(ahead)
            kept = []
            for found in table["names"].to_pylist():
                short = [given[n] for n in found if counts[given[n]] < limit]
                kept.append(bool(short))
                for name in short:
                    counts[name] += 1
            if part not in ready:
                with files.replacing(part) as temporary:
                    pq.write_table(table.filter(pa.array(kept, pa.bool_())), temporary)
            bar.update()
    return counts


def _named(path: Path, matcher: Matcher, threads: bool) -> pa.Table:
    """A function of its own, since other processes must be able to import it."""
    try:
        names, there = columns_of(path), pq.read_schema(path).names
        extras = [c for c in EXTRAS if c in there]
        table = sources.find_rows(path, matcher, [*names.values(), *extras], caption=names["TEXT"], threads=threads)
        return table.rename_columns([*names, *extras, "names"])
    except (pa.ArrowException, OSError, KeyError) as err:
        raise _not_metadata(path, err) from err


def fetch_named(
    names: list[str], root: Path, how: Download, *, known: Sequence[str] = (), limit: int = 1500, workers: int = 0
) -> tuple[Path, dict[str, int], Fetched]:
    """Fetch the pictures of only those metadata rows that hold a name, into a folder of shards in `root`.

    The folder belongs to these names, this limit and this metadata, so the same call resumes a run that was stopped. Links
    rot, so the limit of rows tried for each name is more than the number of pictures wanted. SlugError: as `named_rows` and
    `fetch`; or no row holds any of the names. Returns (folder of shards, {name: rows tried}, outcome).
    """
    metadata = files.resolve(how.metadata_dir)
    marks = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in metadata_files(metadata)]
    asked = json.dumps([names, list(known), limit, marks])
    folder = root / hashlib.sha256(asked.encode()).hexdigest()[:16]
    rows = folder / "metadata"
    counts = named_rows(metadata, names, rows, known=known, limit=limit, workers=workers, distributor=how.distributor)
    if not any(counts.values()):
        raise SlugError(f"no caption in {metadata} names {', '.join(names)}; nothing was written for it: check the spelling")
    return folder, counts, fetch(rows, folder, how)
