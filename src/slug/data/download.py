"""Pictures from the web into shards, by img2dataset: all rows of LAION's metadata, or only those that name something."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import signal
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from slug import files, pool
from slug.data import curation
from slug.data.names import Matcher, plain_name
from slug.errors import SlugError, brief

COLUMNS = ["URL", "TEXT", "NSFW", "similarity", "LICENSE"]  # of LAION-400M's metadata
ROWS_PER_SHARD = 10_000


class Fetched(NamedTuple):
    """What came of a download, over all its shards."""

    shards: int
    rows: int  # asked for
    pictures: int  # in the tars
    failed: int  # no answer, or none in time, or an error of the server
    broken: int  # an answer that is no picture


def add_flags(parser):
    """The flags of a download; their defaults are the paper's settings where it has them."""
    parser.add_argument("--metadata-dir", default="data/laion/metadata", help="folder of LAION's metadata, *.parquet")
    parser.add_argument("--distributor", choices=pool.DISTRIBUTORS, default=pool.LOCAL, help="where processes run")
    parser.add_argument("--processes", type=int, default=16, help="of img2dataset, a shard each at a time")
    parser.add_argument("--threads", type=int, default=128, help="connections a process")
    parser.add_argument("--image-size", type=int, default=256, help="pixels of the side pictures are resized to")
    parser.add_argument("--retries", type=int, default=2, help="further tries for a picture")
    parser.add_argument("--timeout", type=int, default=10, help="seconds to wait for an answer")


def settings(args):
    """The settings of `fetch` from the flags."""
    return {k: getattr(args, k) for k in ("distributor", "processes", "threads", "image_size", "retries", "timeout")}


def metadata_files(folder):
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


def _not_metadata(path, why):
    return SlugError(f"{path} is not LAION's metadata ({' '.join(str(why).split())[:160]}); get the file again")


def fetch(metadata, out, *, distributor=pool.LOCAL, processes=16, threads=128, image_size=256, retries=2, timeout=10):
    """Fetch the pictures of all rows of a metadata folder into shards (data/README.md), 10,000 rows each.

    Shards that are finished are left alone, so the same call goes on where one was stopped; so are pictures that failed in
    them. A shard of which nothing could be fetched (no network) is not finished.

    Args:
        distributor: img2dataset's own: multiprocessing, pyspark or ray.

    Returns:
        Fetched.
    Raises:
        SlugError: the metadata cannot be used, the distributor is not installed, `out` cannot be written, some shards could
            not be finished, or there was nothing to be had.
    """
    if distributor != pool.LOCAL and importlib.util.find_spec(distributor) is None:
        raise SlugError(f"distributor {distributor} is not installed; run: pip install {distributor}")
    paths, out = metadata_files(metadata), files.check_writable(out)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # an import would ask the network for a newer version
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
            processes_count=processes,
            thread_count=threads,
            image_size=image_size,
            retries=retries,
            timeout=timeout,
            distributor=distributor,
            incremental_mode="incremental",
        )
    except SystemExit as end:  # how img2dataset answers Ctrl-C, with exit code 0
        raise KeyboardInterrupt from end
    except Exception as err:  # of img2dataset, Spark or Ray, whose kinds are many
        raise SlugError(f"img2dataset failed ({brief(err)}); run the same command again") from err
    finally:
        signal.signal(signal.SIGINT, interrupt)
    return _outcome(paths, out)


def _outcome(paths, out):
    """`Fetched` of the shards that these metadata files make. SlugError if one is missing, or all are empty."""
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


def named_rows(metadata, names, out, *, known=(), limit=1500, workers=0, distributor=pool.LOCAL):
    """Write the metadata rows that name something into `out`, a file for each file of `metadata` and in its form.

    The first `limit` rows of each name, in file and row order. A file that is there is not read for again, so the same call
    goes on where one was stopped.

    Returns:
        {name: rows}.
    Raises:
        SlugError: the metadata cannot be used, or the distributor is not installed.
    """
    paths = metadata_files(metadata)
    given = {plain_name(n): n for n in names}
    counts = dict.fromkeys(names, 0)
    parts = [out / f"{i:05d}.parquet" for i in range(len(paths))]
    ready = [p for p in parts if p.is_file()]
    workers = curation.worthwhile(paths, workers, distributor)
    find = functools.partial(_named, matcher=Matcher(list(given), known), threads=workers <= 1)
    ahead = pool.spread(find, paths[len(ready) :], workers=workers, distributor=distributor)
    with contextlib.closing(ahead), tqdm(total=len(paths), desc="metadata", unit="file") as bar:
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


def _named(path, matcher, threads):
    try:
        return curation.find_rows(path, matcher, COLUMNS, caption="TEXT", threads=threads)
    except (pa.ArrowException, OSError, KeyError) as err:
        raise _not_metadata(path, err) from err


def fetch_named(metadata, names, root, *, known=(), limit=1500, workers=0, **how):
    """Fetch the pictures of only those metadata rows that name something, into a folder of shards below `root`.

    The folder belongs to these names, limit and metadata, so that the same call goes on where one was stopped.

    Args:
        limit: rows tried a name; links rot, so more than the pictures wanted.
        how: see `fetch`.

    Returns:
        (path of the folder of shards, {name: rows tried}, Fetched).
    Raises:
        SlugError: see `named_rows` and `fetch`; or no row has any of the names.
    """
    marks = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in metadata_files(metadata)]
    asked = json.dumps([names, list(known), limit, marks])
    folder = root / hashlib.sha256(asked.encode()).hexdigest()[:16]
    where = {"workers": workers, "distributor": how.get("distributor", pool.LOCAL)}
    counts = named_rows(metadata, names, folder / "metadata", known=known, limit=limit, **where)
    if not any(counts.values()):
        raise SlugError(f"no caption in {metadata} names {', '.join(names)}; nothing was written for it: check the spelling")
    return folder, counts, fetch(folder / "metadata", folder, **how)
