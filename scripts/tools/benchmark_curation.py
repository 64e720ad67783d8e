#!/usr/bin/env python
"""Times the curation of 20 names in millions of metadata rows, and reading a tar by offset, against the plain ways.

Example: python scripts/tools/benchmark_curation.py               10 million rows, about 1 GB in --scratch: minutes
         python scripts/tools/benchmark_curation.py --rows 100000 200000 --shard-rows 50000 --tar-samples 500

The rows are random, drawn by --seed in the layout of LAION-400M's metadata and of img2dataset's shards, and deleted at the
end. Writes curation.csv and curation.json to --out. Each measurement runs in its own process, so that its peak memory is its
own. The cost for LAION-400M is estimated: its number of rows times the slope between the smallest and the largest --rows. On
a cluster of n machines it is divided by n, because files are independent and only matching rows travel. Files are in the
page cache: a disk slower than `mb_per_s` sets the pace instead.
"""

import concurrent.futures
import functools
import hashlib
import io
import multiprocessing
import resource
import shutil
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from joblib.externals.loky import get_reusable_executor

from slug import cli, files, pool
from slug.cli import flag, group
from slug.data import download, sources
from slug.data.names import Matcher
from slug.data.pairs import TarMembers
from slug.errors import SlugError
from slug.settings import Run

LAION_ROWS = 413_000_000
NAMES = [
    f"{a} {b}" for a in ("Elon", "Taylor", "Beyoncé", "Kim", "Mark") for b in ("Musk", "Swift", "Knowles", "Zuckerberg")
]
NAMED, BEYOND_ASCII = 1e-3, 0.12  # fractions of captions with one of NAMES or a near miss, and with other letters
FILE_ROWS, SHARD_ROWS, GROUP_ROWS = 1_000_000, download.ROWS_PER_SHARD, 100  # img2dataset writes groups of 100 rows
SIDECARS = 600  # bytes of a sample's .json


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    rows: tuple[int, ...] = flag((1_000_000, 10_000_000), "metadata rows, at least two sizes")
    shard_rows: int = flag(1_000_000, "rows that are also written as img2dataset's shards")
    tar_samples: int = flag(10_000, "samples in the tar")
    scratch: str = flag("results/scratch-curation", "folder for the generated files")
    out: str = flag("results/standin", "folder to write")

    def __post_init__(self) -> None:
        if len(set(self.rows)) < 2:
            raise SlugError("--rows needs two sizes, for the slope")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


# ------------------------------------------------------------------------------------------------------------ material


def captions(rng, count):
    """pa.StringArray of captions of 4 to 14 words, whose frequencies are about those of a language."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    plain = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(5000)]
    other = ["café", "Zürich", "“quoted”", "naïve", "—", "東京", "Москва", "décor"]
    forms = [f(n) for n in NAMES for f in (str, str.upper, lambda n: n.lower().replace(" ", "_"), "{}eteer".format)]
    vocabulary = pa.array([*plain, *(w.title() for w in plain), *other, *forms])
    lengths = rng.integers(4, 15, count)
    ends = np.cumsum(lengths)
    words = (np.exp(rng.uniform(0, np.log(2 * len(plain)), ends[-1])) - 1).astype(np.int32)  # Zipf's law
    at = ends - rng.integers(1, 5, count)  # one of the last words
    first = 2 * len(plain)
    drawn = rng.random(count)
    foreign, named = drawn < BEYOND_ASCII, drawn > 1 - NAMED
    words[at[foreign]] = first + rng.integers(0, len(other), foreign.sum())
    words[at[named]] = first + len(other) + rng.integers(0, len(forms), named.sum())
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(words))), " ")


def metadata(rng, count, first):
    """A table in the layout of LAION-400M's metadata."""
    ids = pa.array(np.arange(first, first + count))
    hosts = pa.array([f"https://images-{i}.example.com/media/catalogue/" for i in range(1000)])
    host = hosts.take(pa.array(rng.integers(0, 1000, count)))
    return pa.table(
        {
            "SAMPLE_ID": ids,
            "URL": pc.binary_join_element_wise(host, ids.cast(pa.string()), ".jpg", ""),
            "TEXT": captions(rng, count),
            "NSFW": pa.array(["UNLIKELY", "UNSURE", "NSFW"]).take(pa.array(rng.choice(3, count, p=[0.93, 0.05, 0.02]))),
            "similarity": pa.array(rng.uniform(0.28, 0.42, count)),
            "LICENSE": pa.array(["?"] * count),
        }
    )


def write_metadata(folder, seed, rows, file_rows):
    """Write metadata files of `file_rows` rows, each one row group, as large as Spark's; returns their paths."""
    folder.mkdir(parents=True)
    paths = []
    for first in range(0, rows, file_rows):
        paths.append(folder / f"part-{len(paths):05d}.parquet")
        pq.write_table(metadata(np.random.default_rng([seed, len(paths)]), file_rows, first), paths[-1])
    return paths


def write_shards(folder, seed, rows):
    """Write the parquets of shards; returns their paths."""
    folder.mkdir(parents=True)
    paths = []
    for first in range(0, rows, SHARD_ROWS):
        rng = np.random.default_rng([seed, 1, len(paths)])
        table = metadata(rng, min(SHARD_ROWS, rows - first), first).rename_columns({"URL": "url", "TEXT": "caption"})
        table = table.append_column("key", table["SAMPLE_ID"].cast(pa.string()))
        status = pa.array(["success", "failed_to_download"]).take(pa.array((rng.random(len(table)) > 0.7).astype(np.int8)))
        paths.append(folder / f"{len(paths):05d}.parquet")
        pq.write_table(table.append_column("status", status), paths[-1], row_group_size=GROUP_ROWS)
    return paths


def write_tar(path, seed, samples):
    """Write a tar of samples of about 25 kB, as a shard of pictures of 256 pixels has them."""
    rng = np.random.default_rng([seed, 2])
    with tarfile.open(path, "w") as tar:
        for i in range(samples):
            for kind, size in (("jpg", int(rng.integers(10_000, 40_000))), ("txt", 60), ("json", SIDECARS)):
                info = tarfile.TarInfo(f"{i:09d}.{kind}")
                info.size = size
                tar.addfile(info, io.BytesIO(rng.bytes(size)))
    return path


# ---------------------------------------------------------------------------------------------------------- measurement


def plain_rows(path, matcher, columns, *, caption, where=None):
    """`sources.find_rows` the plain way: reads all rows and searches every caption."""
    table = pq.read_table(path, columns=list({*columns, *(["status"] if where is not None else [])}))
    found = [matcher.find(c or "") for c in table[caption].to_pylist()]
    table = table.append_column("names", pa.array(found, pa.list_(pa.string())))
    table = table.filter(pc.greater(pc.list_value_length(table["names"]), 0))
    return (table if where is None else table.filter(where)).select([*columns, "names"])


def scan(find, paths, columns, caption, where=None, workers=0):
    """(digest of the matching rows, their count) over all files."""
    digest, count = hashlib.sha256(), 0
    extra = {"threads": workers <= 1} if find is sources.find_rows else {}
    function = functools.partial(find, matcher=Matcher(NAMES), columns=columns, caption=caption, where=where, **extra)
    for table in pool.spread(function, paths, workers=workers):
        count += len(table)
        digest.update(repr(table.to_pylist()).encode())
    return digest.hexdigest(), count


def walk(path, wanted):
    """Digest of some members' bytes, reading the whole tar."""
    with tarfile.open(path) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
    return _digest(found[n] for n in wanted)


def by_offset(path, wanted):
    """Digest of some members' bytes, reading only headers and these members."""
    with TarMembers(path) as members:
        return _digest(members[n] for n in wanted)


def _digest(contents):
    return hashlib.sha256(b"".join(contents)).hexdigest()


def timed(function, *args, **kwargs):
    """(result, seconds, peak memory in MB of this process and its children)."""
    started = time.perf_counter()
    result = function(*args, **kwargs)
    seconds = time.perf_counter() - started
    if kwargs.get("workers", 0) > 1:
        get_reusable_executor().shutdown(wait=True)  # memory of child processes is known after they end
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return result, seconds, own + kwargs.get("workers", 0) * child


def alone(function, *args, **kwargs):
    """`timed` in a new process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(timed, function, *args, **kwargs).result()


def compare(case, n_images, size, plain, fast):
    """A row of the table from two results of `timed`. SlugError if these differ."""
    if plain[0] != fast[0]:
        raise SlugError(f"{case}: the fast way does not find what the plain one finds")
    row = {"case": case, "model": "", "device": "cpu", "n_images": n_images, "n_names": len(NAMES)}
    row |= {"plain_s": plain[1], "fast_s": fast[1], "ratio": plain[1] / fast[1], "max_cos_diff": 0.0, "limit_share": np.nan}
    row |= {"peak_mem_mb": fast[2], "plain_peak_mem_mb": plain[2], "mb": size / 1e6}
    row |= {"mb_per_s": size / 1e6 / fast[1], "plain_mb_per_s": size / 1e6 / plain[1]}
    print(f"{case}, {n_images} rows: {fast[1]:.1f} s and {fast[2]:.0f} MB; plain {plain[1]:.1f} s and {plain[2]:.0f} MB")
    return row


def bytes_of(paths):
    return sum(p.stat().st_size for p in paths)


def measure(settings, scratch):
    """The rows of the table."""
    rows = []
    file_rows = min(FILE_ROWS, *settings.rows)
    paths = alone(write_metadata, scratch / "metadata", settings.run.seed, max(settings.rows), file_rows)[0]
    kept = ([*download.NEEDED, *download.EXTRAS], "TEXT")
    for asked in sorted(settings.rows):
        part = paths[: -(-asked // file_rows)]
        count = len(part) * file_rows
        plain = alone(scan, plain_rows, part, *kept)
        for workers in (1, 2):
            case = f"curation, {workers} process{'es' * (workers > 1)}"
            fast = alone(scan, sources.find_rows, part, *kept, workers=workers)
            rows.append(compare(case, count, bytes_of(part), plain, fast) | {"workers": workers, "found": fast[0][1]})
    some = alone(write_shards, scratch / "shards", settings.run.seed, settings.shard_rows)[0]
    kept = (["key", "caption"], "caption", ds.field("status") == "success")
    plain = alone(scan, plain_rows, some, *kept)
    fast = alone(scan, sources.find_rows, some, *kept, workers=1)
    found = {"workers": 1, "found": fast[0][1]}
    rows.append(compare("curation, shards of 10,000 rows", settings.shard_rows, bytes_of(some), plain, fast) | found)
    tar = alone(write_tar, scratch / "00000.tar", settings.run.seed, settings.tar_samples)[0]
    wanted = [f"{i:09d}.jpg" for i in range(0, settings.tar_samples, max(1, settings.tar_samples // 50))]
    case = f"curation, {len(wanted)} pictures of a tar"
    ways = alone(walk, tar, wanted), alone(by_offset, tar, wanted)
    rows.append(compare(case, settings.tar_samples, bytes_of([tar]), *ways))
    return rows


def estimate(rows):
    """An estimated row for LAION-400M for each number of processes, from the slope."""
    out = []
    for workers in (1, 2):
        sizes = [r for r in rows if r.get("workers") == workers and r["case"].startswith(f"curation, {workers} ")]
        low, high = sizes[0], sizes[-1]
        step = high["n_images"] - low["n_images"]
        fast, plain = ((high[k] - low[k]) / step for k in ("fast_s", "plain_s"))
        row = {"case": f"{high['case']}, LAION-400M estimated", "n_images": LAION_ROWS, "workers": workers}
        row |= {"device": "cpu", "n_names": len(NAMES), "seconds_per_million": fast * 1e6}
        row |= {"fast_s": low["fast_s"] + fast * LAION_ROWS, "plain_s": low["plain_s"] + plain * LAION_ROWS}
        out.append(row | {"ratio": row["plain_s"] / row["fast_s"], "mb": high["mb"] / high["n_images"] * LAION_ROWS})
    return out


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    out, scratch = files.check_writable(settings.out), files.check_writable(settings.scratch)
    shutil.rmtree(scratch)
    scratch.mkdir()
    try:
        rows = measure(settings, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows += estimate(rows)
    frame = pd.DataFrame(rows)
    files.write_text(out / "curation.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    files.write_json(out / "curation.json", {"rows": rows, "settings": cli.flat(settings), "versions": cli.versions()})
    for row in rows[-2:]:
        fast, plain = row["fast_s"] / 60, row["plain_s"] / 60
        print(f"{row['case']}: {fast:.1f} min on one machine, {fast / 10:.2f} on ten; plain {plain:.0f} min on one")
    print(f"-> {out / 'curation.csv'}")


if __name__ == "__main__":
    cli.exit_with(main)
