"""Curation of forget sets: captions that hold a name are found in metadata of any size, and their pairs written as a tar.

Rows are merged in the order of the units of the source (slug.data.sources), so the outcome depends neither on the number of
processes nor on where they run.
"""

import functools
import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image

from slug import files, progress
from slug.data.images import is_system, read
from slug.data.names import Matcher, name_stem, plain_name
from slug.data.sources import Folder, Row, Unit, worthwhile
from slug.errors import SlugError
from slug.pool import LOCAL, spread

SPOOL_BYTES, SPOOL_SECONDS = 2**26, 30.0  # the most work that a killed run loses


class How(NamedTuple):
    """How forget sets are curated."""

    max_count: int = 500  # the largest number of pairs of a name
    known: Sequence[str] = ()  # all names there are, see `Matcher`
    near: int = -1  # leave out pictures whose hash differs from an earlier one of the name in at most this many of 64 bits
    workers: int = 0  # see slug.pool.spread
    distributor: str = LOCAL


DEFAULT = How()


class Found(NamedTuple):
    """The outcome of the curation of one name."""

    name: str
    pairs: int  # written
    broken: int  # captions with the name whose picture is not there or cannot be decoded
    duplicates: int  # left out: nearly the same picture as an earlier one of the name
    units: dict[str, int]  # pairs from each shard, CSV or folder
    missing: int = 0  # of the broken ones, those that are not there
    example: str = ""  # one of these

    def __str__(self) -> str:
        counts = [f"{unit}: {n}" for unit, n in self.units.items()]
        more = [f"and {len(counts) - 8} more"] if len(counts) > 8 else []
        gone = f" ({self.missing} of them not there, e.g. {self.example})" if self.missing else ""
        left_out = f"{self.broken} broken pictures{gone} and {self.duplicates} near-duplicates skipped"
        return f"{self.name}: {self.pairs} pairs ({', '.join(counts[:8] + more) or 'no shard'}), {left_out}"

    @property
    def lack(self) -> str:
        """Why a name has no pairs, in words that follow `captions name it, but`; empty where no caption names it."""
        if not self.missing:
            return "none of their pictures can be decoded" if self.broken else ""
        if self.missing == self.broken:
            return f"none of their pictures is there (e.g. {self.example})"
        return f"{self.missing} of their pictures are not there (e.g. {self.example}) and the others cannot be decoded"


def reasons(found: Iterable[Found], where: Path, *, folder: bool) -> str:
    """Why names have no pairs, a sentence for each reason; `folder`: they are folders of pictures."""
    empty = [r for r in found if not r.pairs]
    said = [f"{r.broken} captions in {where} name {r.name}, but {r.lack}; nothing was written" for r in empty if r.lack]
    unnamed = ", ".join(r.name for r in empty if not r.lack)
    if unnamed and folder:
        said.append(f"{where} holds no picture, by its ending, for the names {unnamed}; nothing was written for it")
    elif unnamed:
        said.insert(0, f"no caption in {where} names {unnamed}; nothing was written for it: check the spelling")
    return "; ".join(said)


def usable(content: bytes | None) -> tuple[bytes, int] | None:
    """(JPEG bytes, difference hash) of an image, None if it cannot be decoded whole; the bytes of a JPEG stay unchanged.

    The 64 bits of the hash say for 8 x 8 neighbours of the grey picture at 9 x 8 pixels whether the right one is lighter.
    Scaling and recompression change few of them.
    """
    image = read(content or b"")
    if image is None:
        return None
    try:
        jpg = content or b""
        if image.format != "JPEG":
            out = io.BytesIO()
            image.convert("RGB").save(out, "JPEG", quality=95)
            jpg = out.getvalue()
        small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, ValueError, SyntaxError):
        return None
    return jpg, int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


class Tally:
    """What has been collected of one name so far."""

    def __init__(self) -> None:
        self.pairs, self.broken, self.duplicates, self.missing, self.example = 0, 0, 0, 0, ""
        self.units: dict[str, int] = {}
        self.hashes: list[int] = []

    @property
    def left_out(self) -> tuple[int, int, int, str]:
        return self.broken, self.duplicates, self.missing, self.example

    def lose(self, key: str, *, missing: bool) -> None:
        """Count a picture that is not there, or is broken."""
        self.broken += 1
        self.missing += missing
        self.example = self.example or (key if missing else "")

    def take(self, label: str, value: int, near: int = -1) -> bool:
        """Count a usable picture by its hash; False if it differs from an earlier one in at most `near` bits."""
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
    """The pairs found so far, on disk: memory stays constant, and a run that was stopped can resume.

    A folder of parquet files in the order of the units. Each is whole or absent, and records how far the run had come.
    """

    SCHEMA = pa.schema(
        [("name", pa.string()), ("unit", pa.string()), ("caption", pa.string()), ("jpg", pa.binary()), ("hash", pa.uint64())]
    )

    def __init__(self, folder: Path) -> None:
        self.folder, self.held, self.saved = folder, 0, time.monotonic()
        self.rows: list[dict] = []
        self.parts = sorted(folder.glob("*.parquet"))

    def resume(self, tallies: dict[str, Tally]) -> tuple[int, int]:
        """Bring the tallies to where an earlier run had come: returns its number of finished units and rows of the next."""
        if not self.parts:
            return 0, 0
        for part in self.parts:
            for row in pq.read_table(part, columns=["name", "unit", "hash"]).to_pylist():
                tallies[row["name"]].take(row["unit"], row["hash"])
        state = json.loads(pq.read_schema(self.parts[-1]).metadata[b"state"])
        for name, (broken, duplicates, *gone) in state["left_out"].items():
            tallies[name].broken, tallies[name].duplicates = broken, duplicates
            tallies[name].missing, tallies[name].example = gone or (0, "")  # earlier versions did not tell them apart
        units, rows = state["place"]
        return units, rows

    def add(self, name: str, unit: str, caption: str, jpg: bytes, value: int) -> None:
        """Hold a pair until the next `save`."""
        self.rows.append({"name": name, "unit": unit, "caption": caption, "jpg": jpg, "hash": value})
        self.held += len(jpg)

    def save(self, place: tuple[int, int], tallies: dict[str, Tally], *, due: bool = False) -> None:
        """Write what is held and the place the run has come to; with `due` only if that is much or old."""
        if due and self.held < SPOOL_BYTES and time.monotonic() - self.saved < SPOOL_SECONDS:
            return
        state = {"place": place, "left_out": {n: t.left_out for n, t in tallies.items()}}
        table = pa.Table.from_pylist(self.rows, self.SCHEMA.with_metadata({"state": json.dumps(state)}))
        part = self.folder / f"{len(self.parts):06d}.parquet"
        with files.replacing(part) as temporary:
            pq.write_table(table, temporary, row_group_size=256)  # small groups: the pairs of one name are read piecewise
        self.parts.append(part)
        self.rows, self.held, self.saved = [], 0, time.monotonic()

    def pairs(self, name: str) -> Iterator[tuple[bytes, str]]:
        """The pairs of a name in order: (JPEG bytes, caption)."""
        for part in self.parts:
            scanner = ds.dataset(str(part)).scanner(
                ["jpg", "caption"], ds.field("name") == name, batch_size=256, batch_readahead=1, use_threads=False
            )
            for batch in scanner.to_batches():
                yield from zip(batch["jpg"].to_pylist(), batch["caption"].to_pylist(), strict=True)


def _rows(unit: Unit, matcher: Matcher, threads: bool) -> list[Row]:
    """A function of its own, since other processes must be able to import it."""
    return unit.rows(matcher, threads)


def collect(units: list[Unit], tallies: dict[str, Tally], spool: Spool, how: How) -> None:
    """Bring the spool and {name: Tally} to the end of the units, or to where every name has `max_count` pairs."""
    given = {plain_name(n): n for n in tallies}
    workers = worthwhile([u.path for u in units], how.workers, how.distributor)
    done, row = start = spool.resume(tallies)
    find = functools.partial(_rows, matcher=Matcher(list(given), how.known), threads=workers <= 1)
    ahead = spread(find, units[done:], workers=workers, distributor=how.distributor)

    def short(found: Iterable[str]) -> list[str]:
        return [given[n] for n in found if tallies[given[n]].pairs < how.max_count]

    try:
        with progress.bar(total=len(units), initial=done, desc="curation", unit="file") as bar:
            while done < len(units) and short(given):
                unit, rows = units[done], next(ahead)
                if any(short(found) for _, _, found in rows[row:]):
                    with unit.pictures() as read:
                        while row < len(rows):
                            key, caption, found = rows[row]
                            content = read(key) if short(found) else None
                            picture = usable(content)
                            for name in short(found):
                                if picture is None:
                                    tallies[name].lose(f"{key} of {unit.label}", missing=content is None)
                                elif tallies[name].take(unit.label, picture[1], how.near):
                                    spool.add(name, unit.label, caption, *picture)
                            row += 1
                            spool.save((done, row), tallies, due=True)
                done, row = done + 1, 0
                spool.save((done, row), tallies, due=True)
                bar.update()
    finally:  # also after an interruption or a damaged unit: the next run resumes here
        ahead.close()
        if (done, row) != start:
            spool.save((done, row), tallies)


def curate(
    units: list[Unit], names: list[str], tar_dir: Path, image_dir: Path, work_dir: Path, how: How = DEFAULT
) -> list[Found]:
    """Write the forget sets of all names in one pass: for each the first `max_count` usable pairs, in unit and row order.

    A run that was stopped resumes where it was when called again with the same arguments; what it needs for that lies in
    `work_dir` until it ends. Memory grows neither with the units nor with the names. Nothing is written for a name without
    pairs. SlugError: a unit is damaged, or a folder cannot be written, or is not one that this module wrote.
    """
    for name in names:
        check_own(image_dir, name)
        source = next((u.path for u in units if isinstance(u, Folder) and u.path == image_dir / name_stem(name)), None)
        if source:
            raise SlugError(f"{source} cannot be both the source and the folder to write; give another --image-dir")
    inputs = [(str(u.path), u.path.stat().st_size, u.path.stat().st_mtime_ns) for u in units]
    asked = json.dumps([names, list(how.known), how.max_count, how.near, inputs])
    place = work_dir / hashlib.sha256(asked.encode()).hexdigest()[:16]
    tallies = {n: Tally() for n in names}
    with files.alone_in(place):  # two runs of the same arguments share it
        spool = Spool(place)
        collect(units, tallies, spool, how)
        for name, tally in tallies.items():
            if tally.pairs:  # an empty tar must not replace a good one
                write(spool.pairs(name), name, tar_dir, image_dir)
        shutil.rmtree(spool.folder, ignore_errors=True)
    return [Found(n, t.pairs, t.broken, t.duplicates, t.units, t.missing, t.example) for n, t in tallies.items()]


def check_own(image_dir: Path, name: str) -> None:
    """SlugError if {image_dir}/{name}/ holds anything that `write` did not write there: it replaces the folder."""
    stem = name_stem(name)
    folder, own = image_dir / stem, re.compile(rf"(?:{re.escape(stem)}|{re.escape(_key(stem))})_\d+\.jpg")
    if folder.exists() and not folder.is_dir():
        raise SlugError(
            f"{folder} is a file where the folder of pictures of {name} goes; move it, or give another --image-dir"
        )
    for path in folder.iterdir() if folder.is_dir() else ():
        if not own.fullmatch(path.name) and not is_system(path.name):
            raise SlugError(f"{folder} holds {path.name}, which no forget set has; move it, or give another --image-dir")


def _key(stem: str) -> str:
    """The start of the keys of a name's pairs: webdataset ends a key at its first dot."""
    return stem.replace(".", "-")


def write(pairs: Iterable[tuple[bytes, str]], name: str, tar_dir: Path, image_dir: Path) -> None:
    """Write pairs (JPEG bytes, caption) into {name}.tar and the image folder {name}/, each whole or not at all.

    SlugError: one cannot be written, or the folder is not one that this function wrote.
    """
    check_own(image_dir, name)
    stem = name_stem(name)
    with (
        files.replacing(tar_dir / f"{stem}.tar") as temporary,  # renamed last: a whole tar means that all is there
        files.replacing_folder(image_dir / stem) as folder,
        wds.TarWriter(str(temporary), encoder=False, mtime=0) as out,
    ):
        folder.mkdir()
        for i, (data, caption) in enumerate(pairs):
            key = f"{_key(stem)}_{i}"
            out.write({"__key__": key, "jpg": data, "txt": caption.encode("utf-8", "replace")})
            (folder / f"{key}.jpg").write_bytes(data)
