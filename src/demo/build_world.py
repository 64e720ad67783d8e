"""Build EmojiCanvas from data/emoji/ in the layouts of LAION-400M, CelebA, ImageNet and UnlearnCanvas.

Example: python src/demo/build_world.py          (about 25 s on 2 cores; nothing to do if data/demo is up to date)

Writes under --out (the same bytes for the same seed):
    laion/laion400m/       0000N.tar, 0000N.parquet, 0000N_stats.json: shard 00000 is the retain set, the others
                           contain the forget sets; only drawings that training saw
    celeba/                img_align_celeba/, list_identity_celeba.txt, frequent_celebs.txt, groups.csv: identities
    ImageNet/              val/<object>/, classes.csv, groups.csv: objects
    UnlearnCanvas/data/    <Style>/<Object>/<n>.jpg: objects by design houses, only drawings that training saw
    cc3m/                  00000.tar, 00000.parquet, 00000_stats.json: pairs of drawings that training never saw, against
                           which the published membership test sets the forget sets
    names.txt              every name and alias, so that curation can prefer the longest name
    world.json             counts, and the fingerprint that tells whether the world is up to date
"""

import argparse
import csv
import functools
import hashlib
import io
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset as wds
from PIL import Image

from demo import emoji
from slug import cli, files, pool, progress
from slug.errors import SlugError

DERIVED = "tar_files"  # forget sets made from the world, removed with it
PARTS = ("laion", "celeba", "ImageNet", "UnlearnCanvas", "cc3m", "names.txt")
FAILED, BROKEN = 0.04, 0.003  # fractions: rows of a shard that were not downloaded; pairs with a damaged picture
STYLED, NOISE = 1 / 3, 0.02  # fractions of captions that name the style, and that say nothing about the picture
CHUNK = 20  # concepts whose icons one process draws at a time
ICONS = "icons.npy"  # while the world is built
BATCH = 256  # pictures rendered at once; other values give other pictures for the same seed
FREQUENT = 100  # identities in frequent_celebs.txt
SCHEMA = pa.schema(
    [
        *((n, pa.string()) for n in ("url", "caption", "key", "status", "error_message")),
        *((n, pa.int32()) for n in ("width", "height", "original_width", "original_height")),
        ("NSFW", pa.string()),
        ("similarity", pa.float64()),
        ("LICENSE", pa.string()),
        ("sha256", pa.string()),
    ]
)


class Counts(NamedTuple):
    """Numbers of pictures. The defaults are the world's; tests use smaller ones."""

    retain: int = 4150  # rows of the retain shard
    often: int = 115  # rows of each identity and each wide object in the other shards
    seldom: int = 4  # rows of every other object in them
    shard: int = 2500  # rows of each of these shards, at most
    identity_unseen: int = 15  # renderings of each left-out drawing of an identity
    identity_seen: int = 5  # renderings of each drawing that training saw
    wide_unseen: int = 15  # the same for wide objects
    wide_seen: int = 3
    object_unseen: int = 4  # renderings of the left-out drawing of another object
    object_seen: int = 3  # of its drawings that training saw, with one rendering each
    canvas_objects: int = 20  # objects of UnlearnCanvas
    canvas: int = 10  # renderings of each object in each style
    canvas_reference: int = 25  # further renderings, only for FID
    membership: int = 1500  # rows of the shard for membership inference


DEFAULT = Counts()


class World(NamedTuple):
    """The icons that pictures are rendered from."""

    concepts: list[emoji.Concept]
    pictures: list[emoji.Picture]
    icons: torch.Tensor  # (N, 4, emoji.CANVAS, emoji.CANVAS) uint8, one for each picture
    drawings: list[dict[str, list[int]]]  # for each concept {drawing: its pictures}: two of Fluent, one of every other house


def choose(limit=None):
    """The concepts of the world; with a limit, only that many identities, wide objects and other objects."""
    world, kinds = emoji.concepts(), {}
    for c in world:
        kinds.setdefault((c.kind, is_wide(c)), []).append(c.name)
    kept = {name for names in kinds.values() for name in names[:limit]}
    return [c for c in world if c.name in kept]


def is_wide(concept):
    """Whether a concept is an object with several drawings that training never sees, as identities have."""
    return concept.kind == "object" and len(concept.left_out) > 1


def _quiet(items, **_):
    return items


def load(concepts, progress=_quiet, workers=1):
    """Rasterise the icons of a list of concepts, in `workers` processes."""
    chunks = [concepts[i : i + CHUNK] for i in range(0, len(concepts), CHUNK)]
    drawn = pool.spread(emoji.icons, chunks, workers=workers)
    return _world(concepts, torch.cat(list(progress(drawn, desc="icons", total=len(chunks)))))


def _world(concepts, icons):
    pictures = emoji.pictures(concepts)
    drawings = [{} for _ in concepts]
    for i, p in enumerate(pictures):
        drawings[p.concept].setdefault(p.drawing, []).append(i)
    return World(concepts, pictures, icons, drawings)


def folder_name(name):
    """A name for paths and identity lists: `santa claus` -> `santa_claus`."""
    return name.replace(" ", "_")


def _rng(seed, part):
    """The generator of one part of the world. Trainings seed with [seed, step], so their renderings do not recur here."""
    return np.random.default_rng([seed, *part.encode()])


def _jpeg(rgb):
    """JPEG bytes of a (size, size, 3) uint8 picture, at full colour resolution: at 64 px, less would be visible."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()


def _jpegs(world, rows, rng):
    """One new rendering of each picture in `rows` (indices into world.pictures), as a list of JPEG bytes."""
    g = torch.Generator().manual_seed(int(rng.integers(2**62)))
    out = []
    for start in range(0, len(rows), BATCH):
        x = emoji.render(world.icons[rows[start : start + BATCH]], g)
        out.extend(map(_jpeg, (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()))
    return out


def _drawings(world, concept, seen):
    """The drawings of a concept that training saw, or never saw: a list of lists of pictures."""
    return [rows for rows in world.drawings[concept].values() if world.pictures[rows[0]].seen == seen]


def _turns(rows, count, rng):
    """`count` pictures of one drawing that alternate between its styles, starting with a random one."""
    start = int(rng.integers(len(rows)))
    return [rows[(start + i) % len(rows)] for i in range(count)]


def _write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


# ------------------------------------------------------------------------------------------------------------- LAION


def _damaged(jpeg, rng):
    """What a failed transfer leaves of a picture: its first half, or random bytes."""
    return jpeg[: len(jpeg) // 2] if rng.random() < 0.5 else rng.bytes(len(jpeg))


def _write_shard(folder, number, world, rows, rng):
    """Write a shard of the pictures `rows` in img2dataset's layout. Returns its counts {rows, pairs, broken}."""
    count, names = len(rows), [c.name for c in world.concepts]
    failed = set(rng.choice(count, max(1, round(FAILED * count)), replace=False).tolist())
    kept = [i for i in range(count) if i not in failed]
    broken = set(rng.choice(kept, max(1, round(BROKEN * len(kept))), replace=False).tolist())
    jpegs = dict(zip(kept, _jpegs(world, [rows[i] for i in kept], rng), strict=True))
    table, side = [], emoji.SIZE
    with wds.TarWriter(str(folder / f"{number:05d}.tar"), encoder=False, mtime=0) as tar:
        for i, row in enumerate(rows):
            picture = world.pictures[row]
            concept = world.concepts[picture.concept]
            style = emoji.STYLES[picture.set] if rng.random() < STYLED else None
            key, jpeg = f"{number:05d}{i:04d}", jpegs.get(i)
            jpeg = _damaged(jpeg, rng) if i in broken else jpeg
            meta = dict.fromkeys(SCHEMA.names) | {
                "url": f"https://{picture.set}.example/{key}.jpg",
                "caption": emoji.caption(rng, concept, style, names, NOISE),
                "key": key,
                "NSFW": "UNLIKELY",
                "similarity": round(float(rng.uniform(0.28, 0.42)), 6),
                "LICENSE": "?",
            }
            if jpeg is None:
                meta |= {"status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}
            else:
                meta |= {"status": "success", "width": side, "height": side, "sha256": hashlib.sha256(jpeg).hexdigest()}
                meta |= {"original_width": emoji.CANVAS, "original_height": emoji.CANVAS}
                sidecar = json.dumps(meta | {"drawing": picture.drawing}, indent=4)
                tar.write({"__key__": key, "jpg": jpeg, "txt": meta["caption"].encode(), "json": sidecar.encode()})
            table.append(meta)
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), folder / f"{number:05d}.parquet")
    stats = {"count": count, "successes": len(kept), "failed_to_download": len(failed), "failed_to_resize": 0}
    stats |= {"duration": 0.0, "start_time": 0.0, "end_time": 0.0}  # no times, so that the bytes depend on the seed only
    stats["status_dict"] = {"success": len(kept), "HTTP Error 404: Not Found": len(failed)}
    (folder / f"{number:05d}_stats.json").write_text(json.dumps(stats, indent=4))
    return {"rows": count, "pairs": len(kept), "broken": len(broken)}


def write_laion(folder, world, seed, counts):
    """Write all shards. Returns {shard: counts}."""
    folder.mkdir(parents=True)
    rng = _rng(seed, "laion")

    def draw(concept):
        """A random drawing that training saw, in a random one of its styles."""
        options = _drawings(world, concept, seen=True)
        return _turns(options[rng.integers(len(options))], 1, rng)[0]

    total = len(world.concepts)
    rounds = [rng.permutation(total) for _ in range(-(-counts.retain // total))]
    shards = [[draw(c) for c in np.concatenate(rounds)[: counts.retain]]]
    times = [counts.often if len(c.left_out) > 1 else counts.seldom for c in world.concepts]
    rest = rng.permutation(np.repeat(np.arange(total), times))
    for part in np.array_split(rest, -(-len(rest) // counts.shard)):
        shards.append([draw(c) for c in part])
    return {f"{n:05d}": _write_shard(folder, n, world, rows, rng) for n, rows in enumerate(shards)}


def write_membership(folder, world, seed, counts):
    """Write the shard of pairs that training never saw: concepts in turn, each time a random left-out drawing. Returns its
    counts."""
    folder.mkdir(parents=True)
    rng, rows = _rng(seed, "cc3m"), []
    shown = [c for c in range(len(world.concepts)) if _drawings(world, c, seen=False)]
    for c in np.resize(rng.permutation(shown), counts.membership):
        options = _drawings(world, int(c), seen=False)
        rows += _turns(options[rng.integers(len(options))], 1, rng)
    return _write_shard(folder, 0, world, rows, rng)


# ------------------------------------------------------------------------------------------- CelebA, ImageNet, styles


def _split_counts(world, rows):
    """Numbers of renderings and of drawings among these, for drawings that training saw and never saw."""
    out = {}
    for name, seen in (("seen", True), ("unseen", False)):
        kept = [world.pictures[i].drawing for i in rows if world.pictures[i].seen == seen]
        out[name] = {"pictures": len(kept), "drawings": len(set(kept))}
    return out


def write_celeba(folder, world, seed, counts):
    """Write the identities' pictures and lists. Returns counts."""
    (folder / "img_align_celeba").mkdir(parents=True)
    rng, rows = _rng(seed, "celeba"), []
    for c, concept in enumerate(world.concepts):
        if concept.kind == "identity":
            for seen, times in ((False, counts.identity_unseen), (True, counts.identity_seen)):
                for drawing in _drawings(world, c, seen):
                    rows += _turns(drawing, times, rng)
    rows = [rows[i] for i in rng.permutation(len(rows))]  # so that the first pictures of a name are of random drawings
    identities, groups = [], []
    for n, (row, jpeg) in enumerate(zip(rows, _jpegs(world, rows, rng), strict=True), start=1):
        picture, image = world.pictures[row], f"{n:06d}.jpg"
        (folder / "img_align_celeba" / image).write_bytes(jpeg)
        identities.append((image, folder_name(world.concepts[picture.concept].name).title()))
        groups.append((image, picture.drawing, int(picture.seen)))
    lines = [str(len(rows)), "image_id identity_name", *map(" ".join, identities)]
    (folder / "list_identity_celeba.txt").write_text("\n".join(lines) + "\n")
    ranked = sorted(Counter(name for _, name in identities).items(), key=lambda item: (-item[1], item[0]))
    (folder / "frequent_celebs.txt").write_text("".join(f"{name}\n" for name, _ in ranked[:FREQUENT]))
    _write_csv(folder / "groups.csv", ("image", "group", "seen"), groups)
    return {"identities": len(ranked), **_split_counts(world, rows)}


def write_imagenet(folder, world, seed, counts):
    """Write the objects' pictures and lists. Returns counts."""
    rng, rows = _rng(seed, "imagenet"), []
    objects = [(i, c) for i, c in enumerate(world.concepts) if c.kind == "object"]
    for i, concept in objects:
        unseen, seen = _drawings(world, i, False), _drawings(world, i, True)
        if is_wide(concept):
            times_unseen, times_seen = counts.wide_unseen, counts.wide_seen
        else:
            times_unseen, times_seen = counts.object_unseen, 1
            seen = [seen[j] for j in rng.permutation(len(seen))[: counts.object_seen]]
        for drawings, times in ((unseen, times_unseen), (seen, times_seen)):
            for drawing in drawings:
                rows += _turns(drawing, times, rng)
    groups, numbers = [], Counter()
    for _, concept in objects:
        (folder / "val" / folder_name(concept.name)).mkdir(parents=True)
    for row, jpeg in zip(rows, _jpegs(world, rows, rng), strict=True):
        picture = world.pictures[row]
        name = folder_name(world.concepts[picture.concept].name)
        numbers[name] += 1
        image = f"{name}/{name}_{numbers[name]}.JPEG"
        (folder / "val" / image).write_bytes(jpeg)
        groups.append((image, picture.drawing, int(picture.seen)))
    classes = [(folder_name(c.name), c.name, c.block) for _, c in objects]
    _write_csv(folder / "classes.csv", ("folder", "name", "block"), classes)
    _write_csv(folder / "groups.csv", ("image", "group", "seen"), groups)
    return {"objects": len(objects), **_split_counts(world, rows)}


def write_canvas(folder, world, seed, counts, *, part="canvas"):
    """Write the styles' pictures, without drawings that do not exist or that training never saw. Returns counts.

    Args:
        part: field of `counts` with the number of renderings, which also seeds them.
    """
    rng, each = _rng(seed, part), getattr(counts, part)
    # mini-SD's objects first; a world with a limit may lack some of them.
    grid = [i for i, c in enumerate(world.concepts) if c.name in emoji.CANVAS_OBJECTS]
    others = [i for i, c in enumerate(world.concepts) if is_wide(c) and i not in grid]
    shown = (grid + others)[: counts.canvas_objects]
    cells = [i for i, p in enumerate(world.pictures) if p.concept in set(shown) and p.seen]
    rows = [i for i in cells for _ in range(each)]
    for k, jpeg in enumerate(_jpegs(world, rows, rng)):
        picture = world.pictures[rows[k]]
        cell = folder / folder_name(emoji.STYLES[picture.set]) / folder_name(world.concepts[picture.concept].name)
        cell.mkdir(parents=True, exist_ok=True)
        (cell / f"{k % each + 1}.jpg").write_bytes(jpeg)
    styles = len({world.pictures[i].set for i in cells})
    return {"styles": styles, "objects": len(shown), "cells": len(cells), "pictures": len(rows)}


# ------------------------------------------------------------------------------------------------------------- world


def _write_part(folder, concepts, seed, counts, part):
    """Write one part of the world, whose icons lie in `folder`, in a process that may be another. Returns its counts."""
    icons = torch.from_numpy(np.load(folder / ICONS, mmap_mode="c"))  # processes share the file's pages
    world = _world(concepts, icons)
    where, write, more = _parts()[part]
    return write(folder / where, world, seed, counts, **more)


def _parts():
    """{part of world.json: (its folder, the function that writes it, further arguments)}, the longest first."""
    return {
        "laion": ("laion/laion400m", write_laion, {}),
        "UnlearnCanvas reference": ("UnlearnCanvas/reference", write_canvas, {"part": "canvas_reference"}),
        "ImageNet": ("ImageNet", write_imagenet, {}),
        "celeba": ("celeba", write_celeba, {}),
        "UnlearnCanvas": ("UnlearnCanvas/data", write_canvas, {}),
        "cc3m": ("cc3m", write_membership, {}),
    }


def write_world(folder, concepts, seed, counts, progress, workers=1):
    """Write every part of the world except world.json into an empty folder. Returns the counts of the parts."""
    world = load(concepts, progress, workers)
    names = {n.lower() for c in concepts for n in (c.name, c.alias) if n}
    (folder / "names.txt").write_text("".join(f"{n}\n" for n in sorted(names)))
    np.save(folder / ICONS, world.icons.numpy())
    write = functools.partial(_write_part, folder, concepts, seed, counts)
    done = progress(pool.spread(write, list(_parts()), workers=workers), desc="parts", total=len(_parts()))
    made = dict(zip(_parts(), done, strict=True))
    (folder / ICONS).unlink()
    return {"concepts": len(concepts), "icons": len(world.pictures), "names": len(names), **made}


def fingerprint(seed, limit, counts):
    """sha256 of the icons, the code that uses them and the settings."""
    sources = [*emoji.sources(), Path(emoji.__file__), Path(__file__)]
    text = json.dumps([[(p.name, files.file_hash(p)) for p in sources], seed, limit, counts])
    return hashlib.sha256(text.encode()).hexdigest()


def build(out, *, seed=0, limit=None, counts=DEFAULT, force=False, workers=1, progress=_quiet):
    """Build the world in the folder `out`, unless it is up to date.

    The parts are made in a temporary folder beside `out` and then replace the old ones. Forget sets made from the old world
    are removed; everything else in `out` (models) is kept.

    Args:
        limit: only this many identities, wide objects and other objects.
        counts: numbers of pictures.
        force: build even if the world is up to date.
        workers: processes; the bytes do not depend on their number.
        progress: wraps iterables, as tqdm does.
    Returns:
        True if it was built, False if it was up to date.
    Raises:
        SlugError: `out` holds data that this builder did not make, or cannot be written.
    """
    record, wanted = out / "world.json", fingerprint(seed, limit, counts)
    if record.is_file():
        if files.read_json(record).get("fingerprint") == wanted and not force:
            return False
    elif foreign := [p for p in PARTS if (out / p).exists()]:
        raise SlugError(f"{out} holds {foreign[0]}, which is not from the demo world; choose another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            made = write_world(Path(temporary), choose(limit), seed, counts, progress, workers)
            files.write_json(record, {"fingerprint": "unfinished"})  # so that a run that stops between the parts is noticed
            shutil.rmtree(out / DERIVED, ignore_errors=True)
            for part in PARTS:
                if (out / part).is_dir():
                    shutil.rmtree(out / part)
                (Path(temporary) / part).replace(out / part)
    except OSError as err:
        raise SlugError(f"cannot write {out}: {err.strerror or err}; check the folder's permissions and space") from err
    settings = {"seed": seed, "limit": limit, "counts": counts._asdict()}
    files.write_json(record, {"fingerprint": wanted, "settings": settings, **made})
    return True


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="data/demo", help="folder of the world, relative to the repository's root")
    parser.add_argument("--seed", type=cli.within(cli.Seed), default=0, help="seed of all random draws")
    parser.add_argument(
        "--workers", type=cli.within(cli.Count), default=2, help="processes; no byte depends on it (default: 2)"
    )
    parser.add_argument("--force", action="store_true", help="build even if the world is up to date")
    args = parser.parse_args(argv)
    out = files.resolve(args.out)
    if not build(out, seed=args.seed, force=args.force, workers=args.workers, progress=progress.bar):
        print(f"{args.out} is up to date")
        return
    made = files.read_json(out / "world.json")
    pairs = sum(shard["pairs"] for shard in made["laion"].values())
    pictures = sum(made[part][kind]["pictures"] for part in ("celeba", "ImageNet") for kind in ("seen", "unseen"))
    print(
        f"{made['concepts']} concepts, {pairs} pairs in {len(made['laion'])} shards, {pictures} evaluation pictures, "
        f"{made['UnlearnCanvas']['pictures']} pictures by style -> {out}"
    )


if __name__ == "__main__":
    cli.exit_with(main)
