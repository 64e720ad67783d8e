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
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from slug import files, pool, progress
from slug.data import sources
from slug.data.names import Matcher, plain_name
from slug.data.settings import Download
from slug.errors import SlugError, brief

COLUMNS = ["URL", "TEXT", "NSFW", "similarity", "LICENSE"]  # of LAION-400M's metadata
ROWS_PER_SHARD = 10_000


class Fetched(NamedTuple):
    """The outcome of a download, over all its shards."""

    shards: int
    rows: int  # asked for
    pictures: int  # in the tars
    failed: int  # no answer in time, or a server error
    broken: int  # the answer is no picture


def metadata_files(folder: Path) -> list[Path]:
    """The metadata files of a folder, in order. SlugError if there is none, or one is damaged or lacks a column."""
    folder = files.existing(folder, "folder of LAION's metadata", "see data/README.md, or give --metadata-dir")
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise SlugError(f"{folder} holds no metadata (*.parquet); see data/README.md")
    for path in paths:
        try:
            missing = [c for c in COLUMNS if c not in pq.read_schema(path).names]
        except (pa.ArrowException, OSError) as err:
            raise _not_metadata(path, err) from err
        if missing:
            raise _not_metadata(path, f"no column {', '.join(missing)}")
    return paths


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
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version
    import img2dataset  # here: it takes seconds

    interrupt = signal.getsignal(signal.SIGINT)
    try:
        img2dataset.download(
            url_list=str(paths[0].parent),
            input_format="parquet",
            url_col="URL",
            caption_col="TEXT",
            save_additional_columns=COLUMNS[2:],
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
    return _outcome(paths, out)


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
        return sources.find_rows(path, matcher, COLUMNS, caption="TEXT", threads=threads)
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
