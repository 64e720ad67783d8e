#!/usr/bin/env python
"""Curation of 20 names over millions of metadata rows against a brute-force filter; tar reading by offset against walking.

Example: python scripts/tools/benchmark_curation.py               10 million rows, about 1 GB in --scratch: minutes
         python scripts/tools/benchmark_curation.py --rows 100000 200000 --shard-rows 50000 --tar-samples 500

The rows are drawn by --seed in the layout of LAION-400M's metadata and of img2dataset's shards; they are deleted at the end.
Writes curation.csv (the columns of DESIGN.md's bench table, and more) and curation.json to --out. Each measurement has a
process of its own, so that its peak memory is its own. LAION-400M's cost is the slope between the smallest and the largest
--rows times its rows: an estimate, marked as such. On a cluster of n machines it is divided by n: every file is a unit of
its own, and only rows that name something travel. Files are in the page cache; a disk slower than `mb_per_s` decides.
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

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from joblib.externals.loky import get_reusable_executor

from slug import cli, files, pool
from slug.data import download, sources
from slug.data.names import Matcher
from slug.data.pairs import TarMembers
from slug.errors import SlugError
from slug.settings import Run

LAION_ROWS = 413_000_000
NAMES = [
    f"{a} {b}" for a in ("Elon", "Taylor", "Beyoncé", "Kim", "Mark") for b in ("Musk", "Swift", "Knowles", "Zuckerberg")
]
NAMED, BEYOND_ASCII = 1e-3, 0.12  # of the captions: one of NAMES or a near miss; a word with other letters
FILE_ROWS, SHARD_ROWS, GROUP_ROWS = 1_000_000, download.ROWS_PER_SHARD, 100  # img2dataset writes groups of 100 rows
SIDECARS = 600  # bytes of a sample's .json


def parse_args(argv=None):
    parser = cli.parser(__doc__, Run)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], help="metadata rows, at least two sizes"
    )
    parser.add_argument(
        "--shard-rows", type=int, default=1_000_000, help="of these, rows also written as img2dataset's shards"
    )
    parser.add_argument("--tar-samples", type=int, default=10_000, help="samples of the tar")
    parser.add_argument("--scratch", default="results/scratch-curation", help="folder for the generated files")
    parser.add_argument("--out", default="results/standin", help="folder to write")
    return parser.parse_args(argv)


# ------------------------------------------------------------------------------------------------------------ material


def captions(rng, count):
    """pa.StringArray of captions: 4 to 14 words, the words of a text about as frequent as in a language."""
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
    """`sources.find_rows` without its means: all rows are read, and every caption is looked at."""
    table = pq.read_table(path, columns=list({*columns, *(["status"] if where is not None else [])}))
    found = [matcher.find(c or "") for c in table[caption].to_pylist()]
    table = table.append_column("names", pa.array(found, pa.list_(pa.string())))
    table = table.filter(pc.greater(pc.list_value_length(table["names"]), 0))
    return (table if where is None else table.filter(where)).select([*columns, "names"])


def scan(find, paths, columns, caption, where=None, workers=0):
    """(digest of the rows found, their count) over all files."""
    digest, count = hashlib.sha256(), 0
    extra = {"threads": workers <= 1} if find is sources.find_rows else {}
    function = functools.partial(find, matcher=Matcher(NAMES), columns=columns, caption=caption, where=where, **extra)
    for table in pool.spread(function, paths, workers=workers):
        count += len(table)
        digest.update(repr(table.to_pylist()).encode())
    return digest.hexdigest(), count


def walk(path, wanted):
    """Digest of some members' bytes, by reading the tar through."""
    with tarfile.open(path) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
    return _digest(found[n] for n in wanted)


def by_offset(path, wanted):
    """The same, by the headers and the wanted members alone."""
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
        get_reusable_executor().shutdown(wait=True)  # the memory of processes can be asked for when they have ended
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return result, seconds, own + kwargs.get("workers", 0) * child


def alone(function, *args, **kwargs):
    """`timed` in a new process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(timed, function, *args, **kwargs).result()


def compare(case, n_images, size, plain, fast):
    """A row of the table from two `timed`; SlugError if they do not find the same."""
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


def measure(args, scratch):
    """The rows of the table."""
    rows = []
    file_rows = min(FILE_ROWS, *args.rows)
    paths = alone(write_metadata, scratch / "metadata", args.seed, max(args.rows), file_rows)[0]
    kept = (download.COLUMNS, "TEXT")
    for asked in sorted(args.rows):
        part = paths[: -(-asked // file_rows)]
        count = len(part) * file_rows
        plain = alone(scan, plain_rows, part, *kept)
        for workers in (1, 2):
            case = f"curation, {workers} process{'es' * (workers > 1)}"
            fast = alone(scan, sources.find_rows, part, *kept, workers=workers)
            rows.append(compare(case, count, bytes_of(part), plain, fast) | {"workers": workers, "found": fast[0][1]})
    some = alone(write_shards, scratch / "shards", args.seed, args.shard_rows)[0]
    kept = (["key", "caption"], "caption", ds.field("status") == "success")
    plain = alone(scan, plain_rows, some, *kept)
    fast = alone(scan, sources.find_rows, some, *kept, workers=1)
    found = {"workers": 1, "found": fast[0][1]}
    rows.append(compare("curation, shards of 10,000 rows", args.shard_rows, bytes_of(some), plain, fast) | found)
    tar = alone(write_tar, scratch / "00000.tar", args.seed, args.tar_samples)[0]
    wanted = [f"{i:09d}.jpg" for i in range(0, args.tar_samples, max(1, args.tar_samples // 50))]
    case = f"curation, {len(wanted)} pictures of a tar"
    rows.append(compare(case, args.tar_samples, bytes_of([tar]), alone(walk, tar, wanted), alone(by_offset, tar, wanted)))
    return rows


def estimate(rows):
    """A row for LAION-400M by the slope of each number of processes."""
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


def main(argv=None):
    args = parse_args(argv)
    if len(set(args.rows)) < 2:
        raise SlugError("--rows needs two sizes, for the slope")
    out, scratch = files.check_writable(args.out), files.check_writable(args.scratch)
    shutil.rmtree(scratch)
    scratch.mkdir()
    try:
        rows = measure(args, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows += estimate(rows)
    frame = pd.DataFrame(rows)
    files.write_text(out / "curation.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    files.write_json(out / "curation.json", {"rows": rows, "settings": vars(args), "versions": cli.versions()})
    for row in rows[-2:]:
        fast, plain = row["fast_s"] / 60, row["plain_s"] / 60
        print(f"{row['case']}: {fast:.1f} min on one machine, {fast / 10:.2f} on ten; plain {plain:.0f} min on one")
    print(f"-> {out / 'curation.csv'}")


if __name__ == "__main__":
    cli.exit_with(main)
