"""Pairs of picture and caption in tars, as webdataset writes them."""

import codecs
import functools
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from slug import progress
from slug.data.images import PICTURES, Transform, decode, ending, is_system, told
from slug.data.names import Matcher
from slug.errors import SlugError, brief

PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}


class Pairs(NamedTuple):
    """Matched pictures and captions."""

    images: torch.Tensor  # (N, 3, S, S) uint8
    captions: list[str]
    keys: list[str]
    broken: int  # pictures left out because they cannot be decoded


class TarMembers(Mapping[str, bytes]):
    """The files of an uncompressed tar in their order, {name: content}; contents are read when they are asked for.

    Opening it reads only the headers, several times faster than tarfile does. A tar with anything but plain files (long
    names, links, sparse files) is left to tarfile. Of several tars in one file (`cat a.tar b.tar`) all are read. Use it as a
    context manager.

    Raises OSError, or tarfile.ReadError if it is no tar, or damaged, or lacks the zero blocks that end a tar: tarfile would
    take a tar that was cut between two members, or within a header, for a whole one. SlugError: it is compressed.

    Attributes:
        left_out: {what: members} that are no file of their own: links, and files whose name a later member has again.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: a buffer would read on into the content that is to be skipped.
        self.file = path.open("rb", buffering=0)
        try:
            self.end, self.left_out = self.file.seek(0, io.SEEK_END), Counter[str]()
            start = self._read(0, min(8, self.end))
            packed = next((name for mark, name in PACKED.items() if start.startswith(mark)), None)
            if packed:
                raise SlugError(
                    f"{path} is compressed by {packed}; unpack it to a plain tar, whose members can be read singly"
                )
            if not self.end or any(self._read(max(0, self.end - tarfile.BLOCKSIZE), tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("its end is missing")
            places = self._plain_places()
            self.places = self._all_places() if places is None else places
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
            if not any(header):
                at = self._next(at)
                if at == self.end:
                    return places
                continue
            if header[156] not in b"0\0" or header[345] or header[124] & 0x80:
                return None
            try:
                size, checksum = int(header[124:135], 8), int(header[148:156].rstrip(b"\0 "), 8)
                name = header[:100].partition(b"\0")[0].decode()
                if size < 0 or not name:
                    raise ValueError("no name, or no size")
            except ValueError as err:
                raise tarfile.ReadError(f"its header at byte {at} cannot be read") from err
            if sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum:
                raise tarfile.ReadError(f"its header at byte {at} is damaged")
            self._add(places, name, (at + tarfile.BLOCKSIZE, size))
            at += tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
        raise tarfile.ReadError("its end is missing")

    def _all_places(self) -> dict[str, tuple[int, int]]:
        """{name: (offset, bytes)} of the plain files of any tar, by tarfile."""
        places: dict[str, tuple[int, int]] = {}
        self.left_out.clear()
        at = 0
        while (at := self._next(at)) < self.end:
            self.file.seek(at)
            with tarfile.open(fileobj=self.file, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        self._add(places, member.name, (member.offset_data, member.size))
                    elif not member.isdir():
                        self.left_out["links, or special files"] += 1
                at = tar.offset
            if any(self._read(at, tarfile.BLOCKSIZE)):  # a damaged header, which tarfile takes for the end
                raise tarfile.ReadError(f"its header at byte {at} is damaged")
        return places

    def _add(self, places: dict[str, tuple[int, int]], name: str, place: tuple[int, int]) -> None:
        self.left_out["files whose name comes again later"] += name in places
        places[name] = place

    def _next(self, at: int) -> int:
        """The first block from `at` on that is not all zero, where a header stands; `end` if there is none.

        Zero blocks end a tar, and another tar may follow.
        """
        step = tarfile.BLOCKSIZE
        while at < self.end:
            content = self._read(at, min(step, self.end - at))
            if any(content):
                return at + (len(content) - len(content.lstrip(b"\0"))) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            at, step = at + len(content), 2**20
        return self.end

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


def caption_of(content: bytes) -> str:
    """The text of a caption's bytes: UTF-8, or UTF-16 where a byte order mark says so; the mark is no part of it."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


def key_of(member: str) -> str:
    """The key of a tar's member: its name without its ending, and without `./` in front."""
    while member.startswith("./"):
        member = member[2:]
    end = ending(member)
    return member[: -len(end) - 1] if end else member


def pictures_of(members: Iterable[str]) -> tuple[dict[str, str], Counter[str]]:
    """({key: member} of a tar's pictures in order, what is left out); of two pictures of one key the later one is taken."""
    found: dict[str, str] = {}
    left_out = Counter[str]()
    for member in (m for m in members if ending(m) in PICTURES and not is_system(m)):
        left_out["pictures whose key comes again later"] += key_of(member) in found
        found[key_of(member)] = member
    return found, left_out


def matched(members: Sequence[str]) -> tuple[dict[str, tuple[str, str]], Counter[str]]:
    """Which members of a tar are pairs: {key: (picture, caption)} in the pictures' order, and {what is left out: count}.

    Captions are .txt, or .json where a key has no .txt. A member's key ends at the last dot of its name; what finds no
    partner so is matched as webdataset does it, by the first dot, where this leaves one picture and one caption.
    """
    images, left_out = pictures_of(members)
    texts: dict[str, dict[str, str]] = {"json": {}, "txt": {}}
    for member in (m for m in members if not is_system(m)):
        if ending(member) in texts:
            texts[ending(member)][key_of(member)] = member
        elif ending(member) not in PICTURES:
            left_out[f"files .{ending(member)}" if ending(member) else "files without an ending"] += 1
    captions = texts["json"] | texts["txt"]
    partners = {key: (key, captions[key]) for key in images if key in captions}

    def first_dot(key: str) -> str:
        folder, slash, name = key.rpartition("/")
        return f"{folder}{slash}{name.partition('.')[0]}"

    lonely = Counter(first_dot(k) for k in images if k not in partners)
    spare: dict[str, list[str]] = {}
    for key in (k for k in captions if k not in images):
        spare.setdefault(first_dot(key), []).append(captions[key])
    for key in (k for k in images if k not in partners):
        short = first_dot(key)
        if lonely[short] == len(spare.get(short, ())) == 1 and short not in partners:
            partners[key] = (short, spare.pop(short)[0])
    left_out["pictures without a caption (.txt or .json of their key)"] += len(images) - len(partners)
    left_out["captions (.txt) without a picture"] += sum(m.lower().endswith(".txt") for row in spare.values() for m in row)
    return {partners[k][0]: (images[k], partners[k][1]) for k in images if k in partners}, +left_out


def read_pairs(path: Path) -> tuple[list[tuple[str, bytes, str]], Counter[str]]:
    """The pairs of a tar in order, [(key, image bytes, caption)], and what is left out, {what: count}.

    SlugError: no tar, truncated, compressed, or without a pair.
    """
    try:
        with TarMembers(path) as tar:
            found, left_out = matched(list(tar))
            left_out += tar.left_out
            samples = []
            for key, (image, text) in found.items():
                caption = caption_of(tar[text])
                if ending(text) == "json":
                    said = _json_caption(caption)
                    if said is None:
                        left_out['pictures whose .json has no "caption" and that have no .txt'] += 1
                        continue
                    caption = said
                samples.append((key, tar[image], caption))
    except (tarfile.TarError, EOFError, OSError) as err:
        raise SlugError(f"{path} is not a whole tar file ({err}); delete it and make it again") from err
    if not samples:
        why = f"it has {told(left_out)}" if left_out else "it has no pictures"
        remedy = "captions are .txt files, or .json, beside the pictures; make it again (src/clip/a0_create_tar.py --force)"
        raise SlugError(f"{path} holds no pair of picture and caption: {why}; {remedy}")
    return samples, left_out


def _json_caption(text: str) -> str | None:
    """The field `caption` of a sidecar file; None if it has none."""
    try:
        said = json.loads(text)["caption"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return said if isinstance(said, str) else None


def read_tar(path: Path) -> list[tuple[str, bytes, str]]:
    """The pairs of `read_pairs`; what is left out is told, once in a process."""
    samples, left_out = read_pairs(path)
    if left_out:
        _tell(f"note: {path}: {len(samples)} pairs; left out: {told(left_out)}")
    return samples


@functools.cache
def _tell(line: str) -> None:
    progress.write(line)


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


def saying(pairs: Pairs, names: Iterable[str], *, says: bool = True) -> list[int]:
    """The indices of the pairs whose caption says one of `names`; with `says` False of those whose caption says none."""
    matcher = Matcher(list(names))
    return [i for i, caption in enumerate(pairs.captions) if bool(matcher.find(caption)) == says]


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
