"""Pairs of picture and caption in tars, as webdataset writes them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from slug.data.images import PICTURES, Transform, decode
from slug.data.names import Matcher
from slug.errors import SlugError, brief


class Pairs(NamedTuple):
    """Matched pictures and captions."""

    images: torch.Tensor  # (N, 3, S, S) uint8
    captions: list[str]
    keys: list[str]
    broken: int  # pictures left out because they cannot be decoded


class TarMembers(Mapping[str, bytes]):
    """The files of an uncompressed tar in their order, {name: content}; contents are read when they are asked for.

    Opening it reads only the headers, several times faster than tarfile does. A tar with anything but plain files (long
    names, links, sparse files) is left to tarfile. Use it as a context manager.

    Raises OSError, or tarfile.ReadError if it is no tar, or damaged, or lacks the zero blocks that end a tar: tarfile would
    take a tar that was cut between two members, or within a header, for a whole one.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: a buffer would read on into the content that is to be skipped.
        self.file = path.open("rb", buffering=0)
        try:
            self.end = self.file.seek(0, io.SEEK_END)
            if not self.end or any(self._read(max(0, self.end - tarfile.BLOCKSIZE), tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("its end is missing")
            places = self._plain_places()
            if places is None:
                with tarfile.open(path, "r:") as tar:
                    places = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
            self.places = places
        except BaseException:
            self.file.close()
            raise

    def _read(self, at: int, size: int) -> bytes:
        self.file.seek(at)
        content = self.file.read(size)
        while len(content) < size:  # a read may return less than asked for; above 2 GB it always does
            more = self.file.read(size - len(content))
            if not more:
                raise tarfile.ReadError(f"it ends before byte {at + size}")
            content += more
        return content

    def _plain_places(self) -> dict[str, tuple[int, int]] | None:
        """{name: (offset, bytes)} from the headers (POSIX.1-1988 ustar and GNU); None if there is more than plain files."""
        places: dict[str, tuple[int, int]] = {}
        at = 0
        while at < self.end:
            header = self._read(at, tarfile.BLOCKSIZE)
            if not header[0]:
                return places
            if header[156] not in b"0\0" or header[345] or header[124] & 0x80:
                return None
            try:
                size, checksum = int(header[124:135], 8), int(header[148:156].rstrip(b"\0 "), 8)
                name = header[:100].partition(b"\0")[0].decode()
            except ValueError as err:
                raise tarfile.ReadError(f"its header at byte {at} cannot be read") from err
            if sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum:
                raise tarfile.ReadError(f"its header at byte {at} is damaged")
            places[name] = (at + tarfile.BLOCKSIZE, size)
            at += tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
        raise tarfile.ReadError("its end is missing")

    def __getitem__(self, name: str) -> bytes:
        return self._read(*self.places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def is_whole_tar(path: Path) -> bool:
    """Whether a file is a complete tar with members."""
    try:
        with TarMembers(path) as members:
            return bool(members)
    except (OSError, tarfile.TarError):
        return False


def read_tar(path: Path) -> list[tuple[str, bytes, str]]:
    """The pairs of a tar in order: [(key, image bytes, caption)]. SlugError: no tar, truncated, or without a pair."""
    texts, images = {}, {}
    try:
        with TarMembers(path) as tar:
            for member in tar:
                key, _, kind = member.rpartition(".")
                if kind in PICTURES:
                    images[key] = tar[member]
                elif kind == "txt":
                    texts[key] = tar[member].decode("utf-8", "replace")
    except (tarfile.TarError, EOFError, OSError) as err:
        raise SlugError(f"{path} is not a whole tar file ({err}); delete it and make it again") from err
    samples = [(k, image, texts[k]) for k, image in images.items() if k in texts]
    if not samples:
        raise SlugError(f"{path} holds no pair of picture and caption; make it again (src/clip/a0_create_tar.py --force)")
    return samples


def load_pairs(
    path: Path, transform: Transform, *, leave_out: Matcher | None = None, workers: int = 0, limit: int | None = None
) -> Pairs:
    """Decode the pairs of a tar, the first `limit` of those whose captions hold no name that `leave_out` finds."""
    samples = read_tar(path)
    if leave_out:
        samples = [s for s in samples if not leave_out.find(s[2])]
    samples = samples[:limit]
    images, kept = decode([s[1] for s in samples], transform, workers=workers, desc=f"decode {path.name}")
    if not len(kept):
        raise SlugError(f"{path}: no picture can be used ({len(samples)} tried); make it again")
    chosen = [samples[i] for i in kept]
    return Pairs(images, [s[2] for s in chosen], [s[0] for s in chosen], len(samples) - len(chosen))


def some(pairs: Pairs, rows: Sequence[int]) -> Pairs:
    """The pairs at some indices."""
    captions, keys = ([texts[i] for i in rows] for texts in (pairs.captions, pairs.keys))
    return Pairs(pairs.images[rows], captions, keys, pairs.broken)


def source_images(tar: Path, shards: Path) -> dict[str, str]:
    """The source image that each pair of a forget set shows: {key of the pair: source image}.

    `shards` is the folder of the shards it was curated from (NNNNN.parquet with NNNNN.tar), in whose sidecar files (.json)
    the field `drawing` names the source image, as in the embedded world. Pictures are matched by their bytes. SlugError: a
    picture is in no shard, or its sidecar file does not name its source image.
    """
    hashes = {key: hashlib.sha256(image).hexdigest() for key, image, _ in read_tar(tar)}
    found = {}
    for path in sorted(shards.glob("*.parquet")):
        try:
            rows = pq.read_table(path, columns=["key", "sha256"], filters=[("sha256", "in", set(hashes.values()))])
            if rows.num_rows:
                with TarMembers(path.with_suffix(".tar")) as members:
                    for row in rows.to_pylist():
                        found[row["sha256"]] = json.loads(members[f"{row['key']}.json"])["drawing"]
        except (pa.ArrowException, tarfile.TarError, OSError, ValueError, KeyError) as err:
            raise SlugError(
                f"{path} and its tar do not say which source image a picture shows ({brief(err)}); build the shards again"
            ) from err
    missing = next((key for key, value in hashes.items() if value not in found), None)
    if missing:
        raise SlugError(f"the picture {missing} of {tar} is in no shard of {shards}; make {tar.name} again from these")
    return {key: found[value] for key, value in hashes.items()}
