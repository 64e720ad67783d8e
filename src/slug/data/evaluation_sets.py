"""Labelled pictures: CelebA and ImageNet folders."""

import re
from typing import NamedTuple

import numpy as np
import torch

from slug import files
from slug.data.images import PICTURES, decode_files
from slug.data.names import clean_name
from slug.data.splits import validation_mask
from slug.errors import SlugError


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
    """Both evaluations by the flags of cli.add_data_flags: (identities, objects, {task: mask of the validation split})."""
    shared = {"workers": args.workers, "cache": files.resolve(args.result_dir) / "cache"}
    identities = load_celeba(files.resolve(args.val_data), transform, **shared)
    val = files.resolve(args.imagenet_val)
    objects = load_imagenet(val, transform, share=args.imagenet_share, seed=args.seed, **shared)
    return (
        identities,
        objects,
        {"identities": validation_mask(identities, args.seed), "objects": validation_mask(objects, args.seed)},
    )
