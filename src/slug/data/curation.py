"""Forget sets: captions that name a concept, found in metadata of any size; their pictures, written as a tar of pairs.

Pairs come from LAION shards, from a CSV or from an image folder (`shards`, `Table`, `folders`). A source is a list of units,
each of which can tell its rows that name something and open its pictures. Only telling the rows grows with LAION: it is one
function of one file (`find_rows`), done here, by local processes or by a cluster, and merged in the order of the units. So
the outcome depends neither on the number of processes nor on where they ran.
"""

import contextlib
import functools
import hashlib
import io
import json
import shutil
import tarfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image
from tqdm import tqdm

from slug import files
from slug.data.images import PICTURES
from slug.data.names import Matcher, plain_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError, brief
from slug.pool import LOCAL, spread

WORTH_PROCESSES = 2**28  # bytes of metadata: less is read before other processes have started


SPOOL_BYTES, SPOOL_SECONDS = 2**26, 30.0  # what a run that is killed loses, at most


class Found(NamedTuple):
    """What the curation of one name came to."""

    name: str
    pairs: int  # written
    broken: int  # named, but not decodable
    duplicates: int  # left out: nearly the same picture as an earlier one of the name
    units: dict[str, int]  # pairs by shard, CSV or folder


def find_rows(path, matcher, columns, *, caption, where=None, form="parquet", threads=True):
    """The rows of one metadata file, of any size, whose caption names something.

    Arrow reads only the columns asked for, and passes on only rows that `matcher.screen()` and `where` let pass; `matcher`
    decides these. What is kept in memory does not grow with the file, but with the rows found.

    Args:
        columns: those to return, `caption` among them.
        where: an Arrow expression that a row must fulfil as well.
        form: parquet, or an Arrow file format.
        threads: let Arrow use all cores.

    Returns:
        pa.Table in row order: the columns as they are, and `names`, a list of the names found.
    Raises:
        pa.ArrowException, OSError, KeyError: the file is damaged or lacks a column.
    """
    screen = matcher.screen()
    if screen is not None:
        named = pc.match_substring_regex(ds.field(caption), screen)
        where = named if where is None else where & named
    data = ds.dataset(str(path), format=form)
    # Read ahead enough to keep the cores busy and no more: memory must not depend on how many batches a file has.
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


def worthwhile(paths, workers, distributor):
    """`workers`, or 0 where reading these files here takes less time than starting processes on this machine."""
    small = distributor == LOCAL and sum(p.stat().st_size for p in paths) < WORTH_PROCESSES
    return 0 if small else workers


class Shard(NamedTuple):
    """A shard as img2dataset writes it: NNNNN.parquet with NNNNN.tar."""

    path: Path  # of the parquet

    @property
    def label(self):
        return self.path.stem

    def rows(self, matcher, threads):
        """[(key, caption, names)] of the rows whose picture is in the tar."""
        success = ds.field("status") == "success"
        kind = "the metadata img2dataset writes", "download the shard again"
        return _named(self.path, "key", kind, matcher, where=success, threads=threads)

    @contextlib.contextmanager
    def pictures(self):
        """Give a function key -> bytes; None for a key the tar has not."""
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
    def label(self):
        return self.path.stem

    def rows(self, matcher, threads):
        """[(image, caption, names)]."""
        form = ds.CsvFileFormat(
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types={"image": pa.string(), "caption": pa.string()}),
        )
        kind = "a CSV with the columns image and caption", "see data/README.md"
        return _named(self.path, "image", kind, matcher, form=form, threads=threads)

    @contextlib.contextmanager
    def pictures(self):
        yield lambda image: _file(self.path.parent / image)


class Folder(NamedTuple):
    """A folder of pictures of one name."""

    path: Path
    name: str  # as people write it

    @property
    def label(self):
        return self.path.name

    def rows(self, matcher, threads):
        """[(file, caption, [name])]; the caption is that of a .txt beside the picture, else the name."""
        out = []
        for path in sorted(self.path.iterdir()):
            if path.suffix.lower().lstrip(".") in PICTURES:
                text = path.with_suffix(".txt")
                caption = text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else self.name
                out.append((path.name, caption, [self.name]))
        return out

    @contextlib.contextmanager
    def pictures(self):
        yield lambda file: _file(self.path / file)


def shards(folder):
    """The shards of a folder, in order. SlugError if there is none."""
    found = [Shard(p) for p in sorted(folder.glob("*.parquet")) if p.with_suffix(".tar").is_file()]
    if not found:
        raise SlugError(f"{folder} holds no shard (NNNNN.parquet with NNNNN.tar); run scripts/download_laion400m.sh")
    return found


def folders(root, names):
    """The image folders root/{name}/; `root` itself where one name is asked for and has none. SlugError without one."""
    if len(names) == 1 and not (root / names[0]).is_dir():
        return [Folder(root, plain_name(names[0]))]
    missing = [n for n in names if not (root / n).is_dir()]
    if missing:
        raise SlugError(f"{root} holds no folder {', '.join(missing)}; the pictures of a name are looked for in its own")
    return [Folder(root / n, plain_name(n)) for n in names]


def _named(path, column, kind, matcher, **how):
    """[(value of `column`, caption, names)] of `find_rows`; SlugError if the file is not of its (kind, remedy)."""
    try:
        table = find_rows(path, matcher, [column, "caption"], caption="caption", **how)
    except (pa.ArrowException, OSError, KeyError) as err:
        raise SlugError(f"{path} is not {kind[0]} ({brief(err)}); {kind[1]}") from err
    return list(zip(*(table[c].to_pylist() for c in (column, "caption", "names")), strict=True))


def _file(path):
    """A file's bytes, or None."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def usable(content):
    """(JPEG bytes, difference hash) of an image's bytes, those of a JPEG untouched; None if it cannot be decoded whole.

    The hash has a bit for each of 8 x 8 neighbours of the picture at 9 x 8 pixels in grey: is the right one lighter?
    Scaling and recompression change few of the 64 bits.
    """
    try:
        with Image.open(io.BytesIO(content or b"")) as image:
            image.load()
            if image.format != "JPEG":
                out = io.BytesIO()
                image.convert("RGB").save(out, "JPEG", quality=95)
                content = out.getvalue()
            small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return content, int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


class Tally:
    """The count of one name while it is collected."""

    def __init__(self):
        self.pairs, self.broken, self.duplicates = 0, 0, 0
        self.units, self.hashes = {}, []

    def take(self, label, value, near=-1):
        """Count a usable picture by its hash; False for one that differs from an earlier one in at most `near` bits."""
        if near >= 0 and self.hashes:
            differ = np.bitwise_count(np.array(self.hashes, dtype=np.uint64) ^ np.uint64(value))
            if differ.min() <= near:
                self.duplicates += 1
                return False
        self.pairs += 1
        self.units[label] = self.units.get(label, 0) + 1
        self.hashes.append(value)
        return True


class Spool:
    """What a curation found so far, on disk, so that memory stays constant and a run that was stopped can go on.

    Parquet files in the order of the units; each is whole or not there, and says how far the run had come.
    """

    SCHEMA = pa.schema(
        [("name", pa.string()), ("unit", pa.string()), ("caption", pa.string()), ("jpg", pa.binary()), ("hash", pa.uint64())]
    )

    def __init__(self, folder):
        self.folder, self.rows, self.held, self.saved = folder, [], 0, time.monotonic()
        self.parts = sorted(folder.glob("*.parquet"))

    def resume(self, tallies):
        """Bring {name: Tally} to where an earlier run had come; returns how many units it had done, and rows of the next."""
        if not self.parts:
            return 0, 0
        for part in self.parts:
            for row in pq.read_table(part, columns=["name", "unit", "hash"]).to_pylist():
                tallies[row["name"]].take(row["unit"], row["hash"])
        state = json.loads(pq.read_schema(self.parts[-1]).metadata[b"state"])
        for name, (broken, duplicates) in state["left_out"].items():
            tallies[name].broken, tallies[name].duplicates = broken, duplicates
        return tuple(state["place"])

    def add(self, name, unit, caption, jpg, value):
        self.rows.append({"name": name, "unit": unit, "caption": caption, "jpg": jpg, "hash": value})
        self.held += len(jpg)

    def save(self, place, tallies, *, due=False):
        """Write what is held, having come to `place`; with `due` only if it is much or old."""
        if due and self.held < SPOOL_BYTES and time.monotonic() - self.saved < SPOOL_SECONDS:
            return
        state = {"place": place, "left_out": {n: (t.broken, t.duplicates) for n, t in tallies.items()}}
        table = pa.Table.from_pylist(self.rows, self.SCHEMA.with_metadata({"state": json.dumps(state)}))
        part = self.folder / f"{len(self.parts):06d}.parquet"
        with files.replacing(part) as temporary:
            pq.write_table(table, temporary, row_group_size=256)  # so that the pairs of one name are read in small pieces
        self.parts.append(part)
        self.rows, self.held, self.saved = [], 0, time.monotonic()

    def pairs(self, name):
        """The pairs of a name, in order: (JPEG bytes, caption)."""
        for part in self.parts:
            scanner = ds.dataset(str(part)).scanner(
                ["jpg", "caption"], ds.field("name") == name, batch_size=256, batch_readahead=1, use_threads=False
            )
            for batch in scanner.to_batches():
                yield from zip(batch["jpg"].to_pylist(), batch["caption"].to_pylist(), strict=True)


def _rows(unit, matcher, threads):
    return unit.rows(matcher, threads)


def collect(units, tallies, spool, *, max_count, known, near, workers, distributor):
    """Bring the spool and {name: Tally} to the end of the units, or to where every name has `max_count` pairs."""
    given = {plain_name(n): n for n in tallies}
    workers = worthwhile([u.path for u in units], workers, distributor)
    done, row = start = spool.resume(tallies)
    find = functools.partial(_rows, matcher=Matcher(list(given), known), threads=workers <= 1)
    ahead = spread(find, units[done:], workers=workers, distributor=distributor)

    def short(found):
        return [given[n] for n in found if tallies[given[n]].pairs < max_count]

    try:
        with tqdm(total=len(units), initial=done, desc="curation", unit="file") as bar:
            while done < len(units) and short(given):
                unit, rows = units[done], next(ahead)
                if any(short(found) for _, _, found in rows[row:]):
                    with unit.pictures() as read:
                        while row < len(rows):
                            key, caption, found = rows[row]
                            picture = usable(read(key)) if short(found) else None
                            for name in short(found):
                                if picture and tallies[name].take(unit.label, picture[1], near):
                                    spool.add(name, unit.label, caption, *picture)
                                elif not picture:
                                    tallies[name].broken += 1
                            row += 1
                            spool.save((done, row), tallies, due=True)
                done, row = done + 1, 0
                spool.save((done, row), tallies, due=True)
                bar.update()
    finally:  # also when it is interrupted or a unit is damaged: the next run goes on from here
        ahead.close()
        if (done, row) != start:
            spool.save((done, row), tallies)


def curate(units, names, tar_dir, image_dir, work_dir, *, max_count=500, known=(), near=-1, workers=0, distributor=LOCAL):
    """Write the forget sets of all names, found in one pass: the first `max_count` usable pairs each, in unit and row order.

    A run that was stopped goes on where it was if it is asked for the same; what it keeps for that lies below `work_dir`
    until it is done. Memory grows neither with the units nor with the names.

    Args:
        units: a source.
        known: other names, see `data.Matcher`.
        near: leave out a picture whose hash differs from that of an earlier one of its name in at most this many of 64
            bits; below 0 none.
        workers, distributor: see `spread`.

    Returns:
        [Found] of the names; for one without pairs nothing was written.
    Raises:
        SlugError: a unit is damaged, or a folder cannot be written.
    """
    inputs = [(str(u.path), u.path.stat().st_size, u.path.stat().st_mtime_ns) for u in units]
    asked = json.dumps([names, list(known), max_count, near, inputs])
    spool = Spool(work_dir / hashlib.sha256(asked.encode()).hexdigest()[:16])
    tallies = {n: Tally() for n in names}
    collect(units, tallies, spool, max_count=max_count, known=known, near=near, workers=workers, distributor=distributor)
    for name, tally in tallies.items():
        if tally.pairs:  # or a good tar would be replaced by an empty one (trap 5)
            write(spool.pairs(name), name, tar_dir, image_dir)
    shutil.rmtree(spool.folder, ignore_errors=True)
    return [Found(n, t.pairs, t.broken, t.duplicates, t.units) for n, t in tallies.items()]


def write(pairs, name, tar_dir, image_dir):
    """Write {name}.tar (members {name}_{i}.jpg and .txt) and the image folder {name}/, each whole or not at all.

    Args:
        pairs: an iterable of (JPEG bytes, caption).
    """
    with (
        files.replacing(tar_dir / f"{name}.tar") as temporary,  # takes its place last: a whole tar says that all is there
        files.replacing_folder(image_dir / name) as folder,
        wds.TarWriter(str(temporary), encoder=False, mtime=0) as out,
    ):
        folder.mkdir()
        for i, (data, caption) in enumerate(pairs):
            out.write({"__key__": f"{name}_{i}", "jpg": data, "txt": caption.encode()})
            (folder / f"{name}_{i}.jpg").write_bytes(data)
