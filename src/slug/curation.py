"""Forget sets out of LAION-style shards: captions that name a concept, found in the metadata, fetched from the tars."""

import io
import shutil
import tarfile
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image
from tqdm import tqdm

from slug import files
from slug.data import Matcher, open_tar, plain_name
from slug.errors import SlugError


class Found(NamedTuple):
    """What the curation of one name came to."""

    name: str
    pairs: int  # written
    broken: int  # named, but not decodable
    shards: dict[str, int]  # pairs by shard


def _captions(parquet):
    """[(key, caption)] of the rows of a shard's metadata whose picture is in the tar."""
    try:
        table = pq.read_table(parquet, columns=["key", "caption", "status"], filters=[("status", "=", "success")])
    except (pa.ArrowException, OSError, KeyError) as err:
        text = " ".join(str(err).split())[:160]
        raise SlugError(f"{parquet} is not the metadata img2dataset writes ({text}); download the shard again") from err
    return list(zip(table["key"].to_pylist(), table["caption"].to_pylist(), strict=True))


def _jpeg(data):
    """An image's bytes as JPEG, those of a JPEG untouched; None if it cannot be decoded whole."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.format == "JPEG":
                return data
            out = io.BytesIO()
            image.convert("RGB").save(out, "JPEG", quality=95)
            return out.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _members(tar_path, wanted):
    """{key: image bytes} of the wanted keys of a shard; other members are skipped, not read."""
    out = {}
    try:
        with open_tar(tar_path) as tar:
            for member in tar:
                key, _, kind = member.name.rpartition(".")
                if key in wanted and kind in ("jpg", "jpeg", "png", "webp"):
                    out[key] = tar.extractfile(member).read()
                    if len(out) == len(wanted):
                        break
    except (tarfile.TarError, EOFError, OSError) as err:
        raise SlugError(f"{tar_path} is not a whole tar file ({err}); download the shard again") from err
    return out


def collect(laion_dir, names, *, max_count=500, known=()):
    """The first `max_count` usable pairs of each name, in shard and row order.

    Returns:
        {name: ([(jpeg bytes, caption)], Found)}.
    Raises:
        SlugError: no shards, or one that is damaged.
    """
    shards = sorted(p for p in laion_dir.glob("*.parquet") if p.with_suffix(".tar").is_file())
    if not shards:
        raise SlugError(f"{laion_dir} holds no shard (NNNNN.parquet with NNNNN.tar); run scripts/download_laion400m.sh")
    matcher = Matcher([plain_name(n) for n in names], known)
    given = {plain_name(n): n for n in names}
    pairs, broken = {n: [] for n in names}, dict.fromkeys(names, 0)
    by_shard = {n: {} for n in names}
    for parquet in tqdm(shards, desc="shards", unit="shard"):
        open_names = [n for n in names if len(pairs[n]) < max_count]
        if not open_names:
            break
        rows = []  # (key, caption, name)
        for key, caption in _captions(parquet):
            for found in matcher.find(caption or ""):
                if given[found] in open_names:
                    rows.append((key, caption, given[found]))
        if not rows:
            continue
        images = _members(parquet.with_suffix(".tar"), {key for key, _, _ in rows})
        for key, caption, name in rows:
            if len(pairs[name]) >= max_count:
                continue
            data = _jpeg(images.get(key, b""))
            if data is None:
                broken[name] += 1
                continue
            pairs[name].append((data, caption))
            by_shard[name][parquet.stem] = by_shard[name].get(parquet.stem, 0) + 1
    return {n: (pairs[n], Found(n, len(pairs[n]), broken[n], by_shard[n])) for n in names}


def write(pairs, name, tar_dir, image_dir):
    """Write `{name}.tar` (members {name}_{i}.jpg and .txt) and the image folder {name}/, each whole or not at all.

    An empty list of pairs writes nothing, so that a good tar is never replaced by an empty one (trap 5).
    Returns the tar's path.
    """
    tar_path = tar_dir / f"{name}.tar"
    if not pairs:
        return tar_path
    with files.replacing(tar_path) as temporary, wds.TarWriter(str(temporary), encoder=False, mtime=0) as out:
        for i, (data, caption) in enumerate(pairs):
            out.write({"__key__": f"{name}_{i}", "jpg": data, "txt": caption.encode()})
    folder = image_dir / name
    temporary = image_dir / f".{name}.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for i, (data, _) in enumerate(pairs):
            (temporary / f"{name}_{i}.jpg").write_bytes(data)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as err:
        raise SlugError(f"cannot write {folder}: {err.strerror or err}; check the folder's permissions and space") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tar_path
