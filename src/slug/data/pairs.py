"""Pairs of picture and caption in tars."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from slug.data.images import PICTURES, decode
from slug.errors import SlugError, brief


class Pairs(NamedTuple):
    """Matched pictures and captions."""

    images: torch.Tensor  # (N, 3, S, S) uint8
    captions: list[str]
    keys: list[str]
    broken: int  # members left out because they could not be decoded


class TarMembers(Mapping):
    """The files of an uncompressed tar as a mapping, in their order: name -> bytes, read by offset when asked for.

    Only the headers are read to know where the members lie, several times faster than tarfile does it; a tar with anything
    but plain files (long names, links, sparse files) is left to tarfile. Use it as a context manager.

    Raises:
        tarfile.ReadError: it is no tar, is damaged, or lacks its end mark, zero blocks: cut between two members or within a
            header, tarfile would take it for whole.
        OSError: it cannot be read.
    """

    def __init__(self, path):
        # Unbuffered: what a buffer would read on, past a header, is what is to be skipped.
        self.file = path.open("rb", buffering=0)
        try:
            self.end = self.file.seek(0, io.SEEK_END)
            if not self.end or any(self._read(max(0, self.end - tarfile.BLOCKSIZE), tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("its end is missing")
            self.places = self._plain_places()
            if self.places is None:
                with tarfile.open(path, "r:") as tar:
                    self.places = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
        except BaseException:
            self.file.close()
            raise

    def _read(self, at, size):
        self.file.seek(at)
        content = self.file.read(size)
        while len(content) < size:  # a read may give less than asked for, of more than 2 GB always
            more = self.file.read(size - len(content))
            if not more:
                raise tarfile.ReadError(f"it ends before byte {at + size}")
            content += more
        return content

    def _plain_places(self):
        """{name: (offset, bytes)} by the headers (POSIX.1-1988 ustar and GNU), or None if one is beyond plain files."""
        places, at = {}, 0
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

    def __getitem__(self, name):
        return self._read(*self.places[name])

    def __iter__(self):
        return iter(self.places)

    def __len__(self):
        return len(self.places)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def read_tar(path):
    """The samples of a webdataset tar, in order: [(key, image bytes, caption)].

    Raises SlugError if the file is no tar, is cut short, or holds no pair.
    """
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


def load_pairs(path, transform, *, leave_out=None, workers=0, limit=None):
    """The pairs of a tar as `Pairs`.

    Args:
        leave_out: a Matcher; pairs whose caption it finds a name in are left out (trap 10: the retain set must not
            hold the forgotten name).
        limit: at most this many pairs, the first ones.
    """
    samples = read_tar(path)
    if leave_out:
        samples = [s for s in samples if not leave_out.find(s[2])]
    samples = samples[:limit]
    images, kept = decode([s[1] for s in samples], transform, workers=workers, desc=f"decode {path.name}")
    if not len(kept):
        raise SlugError(f"{path}: no picture can be used ({len(samples)} tried); make it again")
    chosen = [samples[i] for i in kept]
    return Pairs(images, [s[2] for s in chosen], [s[0] for s in chosen], len(samples) - len(chosen))


def some(pairs, rows):
    """The pairs at `rows`, a list of indices, as `Pairs`."""
    chosen = ([texts[i] for i in rows] for texts in (pairs.captions, pairs.keys))
    return Pairs(pairs.images[rows], *chosen, pairs.broken)


def drawings_of(tar, shards):
    """The drawing that each pair of a forget set shows, by the pictures' bytes in the shards it was curated from.

    Args:
        tar: path of the forget set.
        shards: folder of NNNNN.parquet with NNNNN.tar, whose sidecar files (.json) say `drawing`, as the demo's do.
    Returns:
        {key of the pair: drawing}.
    Raises:
        SlugError: a picture is in no shard, or its sidecar does not say its drawing.
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
            raise SlugError(f"{path} and its tar do not say which drawing a picture is of ({brief(err)})") from err
    missing = next((key for key, value in hashes.items() if value not in found), None)
    if missing:
        raise SlugError(f"the picture {missing} of {tar} is in no shard of {shards}; make {tar.name} again from these")
    return {key: found[value] for key, value in hashes.items()}
