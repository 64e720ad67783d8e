"""Pictures and captions in: tars of pairs, CelebA and ImageNet folders, captions matched by name.

Pictures are decoded once, by workers, into one uint8 tensor; the order and the result depend neither on the number of
workers nor on that of processes.
"""

import hashlib
import html
import io
import json
import multiprocessing
import re
import tarfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from slug import files
from slug.errors import SlugError, brief


class Pairs(NamedTuple):
    """Matched pictures and captions."""

    images: torch.Tensor  # (N, 3, S, S) uint8
    captions: list[str]
    keys: list[str]
    broken: int  # members left out because they could not be decoded


class PictureSet(NamedTuple):
    """Labelled pictures of an evaluation."""

    images: torch.Tensor  # (N, 3, S, S) uint8
    labels: torch.Tensor  # (N,) index into `names`
    names: list[str]  # class names, as said in prompts
    blocks: torch.Tensor  # (C,) a picture is classified among the classes of its own block
    groups: list[str]  # (N,) pictures of one group (one drawing) stay in one half
    seen: torch.Tensor  # (N,) bool: the group was in the model's training data
    broken: int
    paths: tuple[str, ...] = ()  # (N,) the files


# ------------------------------------------------------------------------------------------------------------ names


def plain_name(name):
    """A name as people write it: `Elon_Musk` -> `Elon Musk`."""
    return " ".join(name.replace("_", " ").split())


def spread(items, count):
    """`count` of a list's items, evenly spread: what a sheet shows of many."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


MOST_SCREENED = 200  # names
BETWEEN_WORDS = re.compile(r"[\W_]+")  # \w is what str.isalnum calls a letter or digit, and `_`


def _folded(text):
    """NFKC and casefold, every run of characters that are no letter or digit turned into a space, one space each side."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return f" {BETWEEN_WORDS.sub(' ', text).strip()} "


class Matcher:
    """Finds names in captions as whole words (PAPER.md, section 3): NFKC and casefold, `_`, `-` and space alike.

    Args:
        names: the names looked for.
        known: other names; where one of these contains a looked-for name, the longest wins, so that `tropical fish` is
            no `fish`.
    """

    def __init__(self, names, known=()):
        self.names = {_folded(n): n for n in names}
        longer = [_folded(k) for k in known]
        # For each name: the known names that hide it wherever they stand.
        self.hiding = {f: sorted((k for k in longer if f in k and k != f), key=len, reverse=True) for f in self.names}
        self.order = {f: i for i, f in enumerate(self.names)}
        self.by_first_word = {}  # so that a caption costs the same with ten thousand names as with one
        for folded in self.names:
            for word in folded.split()[:1]:
                self.by_first_word.setdefault(word, []).append(folded)

    def find(self, caption):
        """The looked-for names that stand in a caption, as they were given and in that order."""
        text = _folded(caption)
        started = {f for word in text.split() for f in self.by_first_word.get(word, ())}
        found = []
        for folded in sorted((f for f in started if f in text), key=self.order.__getitem__):
            shown = text
            for hidden in self.hiding[folded]:
                while hidden in shown:  # again: two in a row share the space between them
                    shown = shown.replace(hidden, " | ")  # a mark, so that what stood around it does not join
            if folded in shown:
                found.append(self.names[folded])
        return found

    def screen(self):
        """A RE2 pattern, as Arrow takes it: it matches every caption that `find` finds a name in, and few others.

        A caption within ASCII is folded by lower case alone, so the pattern decides it (but for hidden names); any other one
        matches, since folding may turn its characters into anything. None where the names are so many that `find` itself is
        faster than the pattern, whose automaton outgrows RE2's memory.
        """
        if len(self.names) > MOST_SCREENED:
            return None
        words = [r"[^a-z0-9]+".join(folded.split()) for folded in self.names if folded.isascii() and folded.strip()]
        # (?i:) must not reach the first part: there it would let the long s and the Kelvin sign pass for ASCII.
        named = rf"|(?i:(?:^|[^a-z0-9])(?:{'|'.join(words)})(?:[^a-z0-9]|$))" if words else ""
        return rf"[^\x00-\x7f]{named}"


# ----------------------------------------------------------------------------------------------------------- pictures


BATCH = 64  # pictures decoded at once


class Decoded(torch.utils.data.Dataset):
    """Items (a path, or bytes) as transformed pictures; None where one cannot be decoded."""

    def __init__(self, items, transform):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        item = self.items[i]
        try:
            with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                return self.transform(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


def batches(items, transform, *, workers=0, desc="decode"):
    """Yield [transformed picture, or None where it cannot be decoded] of BATCH items (paths or bytes) after the other."""
    workers = workers if len(items) > 256 else 0
    # The platform's own way to start them: within one of joblib's processes the default is joblib's, which takes no others.
    context = multiprocessing.get_all_start_methods()[0] if workers else None
    how = {"num_workers": workers, "multiprocessing_context": context, "collate_fn": list}
    loader = torch.utils.data.DataLoader(Decoded(items, transform), batch_size=BATCH, **how)
    yield from tqdm(loader, desc=desc, unit="batch", leave=False, disable=len(items) < 500)


def by_batch(function, items, transform, *, workers=0, desc="look"):
    """What function says of all pictures, as if it saw them at once: {key: (M, ...)}, of the M that can be decoded.

    Only what it says is kept, so that memory holds a few batches of pictures, however many there are.

    Args:
        function: (N, 3, S, S) -> {key: (N, ...)}.
        items: paths or bytes of images.
    """
    parts = []
    for rows in batches(items, transform, workers=workers, desc=desc):
        kept = [image for image in rows if image is not None]
        if kept:
            parts.append(function(torch.stack(kept)))
    return {key: torch.cat([part[key] for part in parts]) for key in (parts[0] if parts else ())}


def decode(items, transform, *, workers=0, desc="decode"):
    """Paths or bytes of images -> (uint8 tensor (M, 3, S, S), indices (M,) of the items that could be decoded)."""
    rows = [image for batch in batches(items, transform, workers=workers, desc=desc) for image in batch]
    kept = [i for i, image in enumerate(rows) if image is not None]
    images = torch.stack([rows[i] for i in kept]) if kept else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return images, torch.tensor(kept, dtype=torch.long)


def decode_files(paths, transform, *, workers=0, desc="decode", cache=None):
    """`decode` of image files, done once: the result is kept under the folder `cache` and memory-mapped from there.

    What is kept is known by the files' paths, sizes and times and by the transform, so a changed file is decoded anew.
    """
    if cache is None:
        return decode(paths, transform, workers=workers, desc=desc)

    def mark(path):
        try:
            found = Path(path).stat()
        except OSError:
            return path, None, None
        return path, found.st_size, found.st_mtime_ns

    shape = re.sub(r" at 0x[0-9a-f]+", "", repr(transform))  # a function's address says nothing
    digest = hashlib.sha256(repr((shape, [mark(p) for p in paths])).encode()).hexdigest()
    path = Path(cache) / f"{digest[:24]}.safetensors"
    if path.is_file():
        try:
            kept = load_file(path)
            return kept["images"], kept["kept"]
        except (SafetensorError, OSError, KeyError):
            path.unlink()  # cut short: decode again
    images, kept = decode(paths, transform, workers=workers, desc=desc)
    with files.replacing(path) as temporary:
        save_file({"images": images, "kept": kept}, temporary)
    return images, kept


PICTURES = ("jpg", "jpeg", "png", "webp")


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


def _groups(folder, names):
    """groups.csv of an evaluation folder as {image: (group, seen)}; without one every picture is its own, seen group."""
    path = folder / "groups.csv"
    if not path.is_file():
        return {n: (n, True) for n in names}
    rows = files.read_csv(path, ("image", "group", "seen"), "delete it, or make the folder again")
    table = {r["image"]: (r["group"], r["seen"] == "1") for r in rows}
    missing = next((n for n in names if n not in table), None)
    if missing:
        raise SlugError(f"{path} has no row for {missing}; delete it, or make the folder again")
    return table


def _picture_set(folder, paths, labels, names, blocks, transform, workers, cache, desc):
    images, kept = decode_files([str(p) for p in paths.values()], transform, workers=workers, desc=desc, cache=cache)
    keys = list(paths)
    if not len(kept):
        raise SlugError(f"{folder}: no picture can be used ({len(keys)} tried); see data/README.md for its layout")
    table = _groups(folder, keys)
    chosen = [keys[i] for i in kept]
    return PictureSet(
        images=images,
        labels=torch.tensor(labels)[kept],
        names=names,
        blocks=torch.tensor(blocks),
        groups=[table[k][0] for k in chosen],
        seen=torch.tensor([table[k][1] for k in chosen]),
        broken=len(keys) - len(chosen),
        paths=tuple(str(paths[k]) for k in chosen),
    )


PICTURE = re.compile(rf".+\.(?:{'|'.join(PICTURES)})", re.I)  # a picture's file name


def clean_name(name):
    """An identity as people write it: `Chris_Evans_(actor)` -> `Chris Evans`.

    NFKC; HTML entities resolved; what stands in brackets and characters that do not show left out; then `plain_name`.
    """
    text = unicodedata.normalize("NFKC", html.unescape(name))
    text = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text)
    return plain_name("".join(c for c in text if unicodedata.category(c)[0] != "C"))


def identity_rows(path):
    """{image file: identity} of one of CelebA's identity lists, identities as they stand there.

    Both forms are read: `list_identity_celeba.txt` (a count, a header, then `image identity` rows; one of the two may lack)
    and `identity_CelebA.txt` (rows alone). Raises SlugError if the file is in neither, or has not as many rows as it says.
    """
    lines = [line for line in files.read_text(path, "convert it, e.g. with iconv").splitlines() if line.strip()]
    headed = bool(lines) and lines[0].strip().isdecimal()
    first = next((n for n, line in enumerate(lines[:3]) if PICTURE.fullmatch(line.split()[0])), 0)
    rows = [line.split(maxsplit=1) for line in lines[first:]]
    good = [r for r in rows if len(r) == 2 and PICTURE.fullmatch(r[0])]
    if not good or len(good) < len(rows) or (headed and int(lines[0]) != len(rows)):
        raise SlugError(
            f"{path} is not in CelebA's format (a count, a header, then as many 'image identity' rows): "
            f"{len(good)} good rows of {len(rows)}" + (f", {lines[0].strip()} promised" if headed else "")
        )
    return {image: identity.strip() for image, identity in good}


def celeba_names(root):
    """{image file: identity} of list_identity_celeba.txt, identities as people write them (`clean_name`)."""
    path = files.existing(root / "list_identity_celeba.txt", "CelebA's identity list", "ask for it as data/README.md says")
    rows = {image: clean_name(name) for image, name in identity_rows(path).items()}
    if all(name.isdigit() or not name for name in rows.values()):
        raise SlugError(f"{path} has numbers for people; the list with names must be asked for, see data/README.md")
    return rows


def load_celeba(root, transform, *, workers=0, per_class=None, cache=None):
    """The identity evaluation: pictures of the frequent identities (frequent_celebs.txt), all identities as classes.

    Args:
        root: folder with img_align_celeba/, list_identity_celeba.txt, frequent_celebs.txt.
        per_class: at most this many pictures an identity.
        cache: see `decode_files`.
    """
    root = files.existing(root, "CelebA folder", "give --val-data")
    identity = celeba_names(root)
    frequent = files.existing(
        root / "frequent_celebs.txt", "list of frequent identities", "make it with src/clip/a0_prepare_celeba.py"
    )
    shown = {clean_name(n) for n in files.read_text(frequent).splitlines() if n.strip()}
    names = sorted(set(identity.values()))
    index = {n: i for i, n in enumerate(names)}
    counts, paths, labels = dict.fromkeys(names, 0), {}, []
    for image, name in identity.items():
        if name in shown and (per_class is None or counts[name] < per_class):
            counts[name] += 1
            paths[image] = root / "img_align_celeba" / image
            labels.append(index[name])
    return _picture_set(root, paths, labels, names, [0] * len(names), transform, workers, cache, "decode identities")


def imagenet_names():
    """{WordNet id: open_clip's class name} of the 1,000 classes of ImageNet-1k, in the order that both lists have."""
    import slug.torchvision_cpu  # noqa: F401  (before open_clip and timm)

    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CLASSNAMES, strict=True))


def imagenet_classes(val):
    """{class folder: (name said in prompts, block)} of an ImageNet-style folder, in the order of the classes.

    `classes.csv` (folder, name, block) beside the folder names the classes that have pictures. Without it the subfolders
    must be WordNet ids of ImageNet-1k: all its 1,000 are classes then, whether or not there are pictures of each.
    Raises SlugError if a subfolder has no name.
    """
    table = val.parent / "classes.csv"
    found = sorted(p.name for p in val.iterdir() if p.is_dir())
    if table.is_file():
        rows = files.read_csv(table, ("folder", "name", "block"), "see data/README.md")
        wrong = next((r["block"] for r in rows if not r["block"].strip().isdecimal()), None)
        if wrong is not None:
            raise SlugError(f"{table} has the block {wrong!r}, which is no number; see data/README.md")
        return {r["folder"]: (r["name"], int(r["block"])) for r in rows if (val / r["folder"]).is_dir()}
    rows = {wnid: (name, 0) for wnid, name in imagenet_names().items()}
    strange = [f for f in found if f not in rows]
    if strange or not found:
        what = f"the folder {strange[0]}, which is no WordNet id of ImageNet-1k" if strange else "no class folders"
        raise SlugError(f"{val} has {what}, and there is no {table} to name it; see scripts/valprep.sh and data/README.md")
    return rows


def load_imagenet(val, transform, *, workers=0, share=1.0, seed=0, cache=None):
    """The utility evaluation: an ImageNet-style folder, one subfolder a class (see `imagenet_classes`).

    Folders of the same name are one class: two synsets of ImageNet are called `sunglasses`, two `missile`, and no prompt
    tells them apart, so that as rivals neither could ever be right. `share` draws that part of the pictures by `seed`;
    `cache`: see `decode_files`.
    """
    val = files.existing(val, "ImageNet validation folder", "give --imagenet-val")
    rows = imagenet_classes(val)
    classes = list(dict.fromkeys(rows.values()))
    index = {c: i for i, c in enumerate(classes)}
    paths, labels = {}, []
    for folder, row in rows.items():
        for path in sorted((val / folder).iterdir()) if (val / folder).is_dir() else ():
            paths[f"{folder}/{path.name}"] = path
            labels.append(index[row])
    if share < 1:
        keep = np.sort(np.random.default_rng(seed).permutation(len(paths))[: round(share * len(paths))])
        keys = list(paths)
        paths, labels = {keys[i]: paths[keys[i]] for i in keep}, [labels[i] for i in keep]
    if not paths:
        raise SlugError(f"{val} holds no pictures; see data/README.md for its layout")
    names, blocks = [name for name, _ in classes], [block for _, block in classes]
    return _picture_set(val.parent, paths, labels, names, blocks, transform, workers, cache, "decode objects")


def load_evaluation(args, transform):
    """Both evaluations by the flags of cli.add_data_flags: (identities, objects, {task: mask of the select half})."""
    shared = {"workers": args.workers, "cache": files.resolve(args.result_dir) / "cache"}
    identities = load_celeba(files.resolve(args.val_data), transform, **shared)
    val = files.resolve(args.imagenet_val)
    objects = load_imagenet(val, transform, share=args.imagenet_share, seed=args.seed, **shared)
    return identities, objects, {"identities": halves(identities, args.seed), "objects": halves(objects, args.seed)}


def halves(pictures, seed):
    """Split an evaluation into a select and a report half, by group: (N,) bool, True in the select half.

    Within every class, and within the seen and the unseen groups apart, half of the groups (one of three) go to the
    select half; a class's only group falls by chance. Without this, a step would be reported on the very pictures it
    was selected on (trap 9).
    """
    rng = np.random.default_rng([seed, len(pictures.groups)])
    by_class = {}
    for i, (label, seen, group) in enumerate(
        zip(pictures.labels.tolist(), pictures.seen.tolist(), pictures.groups, strict=True)
    ):
        by_class.setdefault((label, seen), {}).setdefault(group, []).append(i)
    select = torch.zeros(len(pictures.groups), dtype=torch.bool)
    for groups in by_class.values():
        order = [list(groups)[i] for i in rng.permutation(len(groups))]
        count = len(order) // 2 + (len(order) == 1 and rng.random() < 0.5)
        for group in order[:count]:
            select[groups[group]] = True
    return select
