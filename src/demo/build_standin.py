"""Make a bare copy of this repository with stand-ins for the real downloads, which have the same names and formats.

Example: python src/demo/build_standin.py --out results/standin-clone
scripts/run_standin.sh then follows docs/reproduce.md there.
Writes the repository's files into OUT and, into its otherwise empty data/, what a user would have downloaded:
    ImageNet/              ILSVRC2012_img_val.tar: the embedded world's pictures of objects that ImageNet has a class for;
                           ILSVRC2012_devkit_t12.tar.gz: all 1,000 classes, their ids shuffled, and some inner nodes
    celeba/                img_align_celeba.zip, identity_CelebA.txt, list_identity_celeba.txt, some names with a suffix
    UnlearnCanvas/         data/<Style>/<Object>/<n>.jpg, and classifiers/
    models/                mini-SD as a pipeline folder with its CLIP, instead of Stable Diffusion
    laion/laion400m/       the world's shards, instead of a download
"""

import argparse
import csv
import io
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before timm)

import numpy as np
import scipy.io
from timm.data import ImageNetInfo

from demo import convert_clip, convert_sd
from slug import cli, files
from slug.data import evaluation_sets
from slug.errors import SlugError

COPIED = (
    "src",
    "scripts",
    "pyproject.toml",
    "README.md",
    "docs",
    "data/README.md",
    "data/emoji",
    "data/models",
    "data/uncanvas",
)
COPIED += ("results/bench",)
PER_CLASS, PER_IDENTITY = 12, 20  # pictures
INNER = ("n00001740", "n00015388", "n03574816")  # WordNet nodes that are not classes: entity, animal, instrument


def write_devkit(path, ids, truth):
    """Write a devkit like ImageNet's: data/meta.mat and data/ILSVRC2012_validation_ground_truth.txt in a tar.gz.

    Args:
        ids: {WordNet id: devkit id} of the classes.
        truth: devkit id of each validation picture, in the order of their numbers.
    """
    info = ImageNetInfo("imagenet-1k")
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")
    rows = [(float(i), w, info.label_name_to_description(w), "", 0.0, [], 0.0, 0.0) for w, i in ids.items()]
    rows.sort()
    # The nodes above the classes come last and have children; a parser must skip them.
    rows += [(float(len(ids) + n), w, w, "", 2.0, [1.0, 2.0], 1.0, 0.0) for n, w in enumerate(INNER, 1)]
    synsets = np.array(rows, dtype=[(f, object) for f in fields])[:, None]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    truth = "".join(f"{i}\n" for i in truth).encode()
    with files.replacing(path) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for name, content in (("meta.mat", meta.getvalue()), ("ILSVRC2012_validation_ground_truth.txt", truth)):
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_imagenet(folder, world, rng):
    """Write both archives of ImageNet from the world's pictures of objects that share the name of an ImageNet class."""
    wnids = {}
    for wnid, name in evaluation_sets.imagenet_names().items():
        wnids.setdefault(name.casefold(), wnid)
    with (world / "ImageNet" / "classes.csv").open(newline="") as f:
        folders = {r["folder"]: wnids[r["name"].casefold()] for r in csv.DictReader(f) if r["name"].casefold() in wnids}
    if not folders:
        raise SlugError(f"no object of {world} has the name of an ImageNet class; build the whole world")
    pictures = []  # (file, WordNet id)
    for name, wnid in folders.items():
        found = sorted((world / "ImageNet" / "val" / name).iterdir())
        pictures += [(found[i], wnid) for i in sorted(rng.permutation(len(found))[:PER_CLASS])]
    pictures = [pictures[i] for i in rng.permutation(len(pictures))]
    known = list(evaluation_sets.imagenet_names())
    ids = {known[k]: n for n, k in enumerate(rng.permutation(len(known)), 1)}
    write_devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", ids, [ids[wnid] for _, wnid in pictures])
    with files.replacing(folder / "ILSVRC2012_img_val.tar") as temporary, tarfile.open(temporary, "w") as tar:
        for n, (path, _) in enumerate(pictures, 1):
            tar.add(path, f"ILSVRC2012_val_{n:08d}.JPEG", filter=_nobody)
    return len(pictures), len(folders)


def _nobody(member):
    """A tar member without its file's owner and time."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def write_celeba(folder, world, rng):
    """Write CelebA's pictures as a zip and its two identity lists."""
    rows, counts = [], {}
    for image, name in evaluation_sets.identity_rows(world / "celeba" / "list_identity_celeba.txt").items():
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= PER_IDENTITY:
            rows.append((image, name))
    people = sorted(counts)
    number = {name: int(n) for name, n in zip(people, rng.permutation(len(people)) + 1, strict=True)}
    # Every tenth name has a suffix, as in lists made by people, which slug.data.names.clean_name removes.
    listed = {name: name + ("_(character)" if i % 10 == 3 else "") for i, name in enumerate(people)}
    names = [f"{n:06d}.jpg" for n in range(1, len(rows) + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / "img_align_celeba.zip") as temporary, zipfile.ZipFile(temporary, "w") as out:
        for name, (image, _) in zip(names, rows, strict=True):
            content = (world / "celeba" / "img_align_celeba" / image).read_bytes()
            out.writestr(zipfile.ZipInfo(f"img_align_celeba/{name}"), content)
    pairs = list(zip(names, rows, strict=True))
    numbers = "".join(f"{name} {number[person]}\n" for name, (_, person) in pairs)
    lines = [str(len(rows)), "image_id identity_name", *(f"{name} {listed[person]}" for name, (_, person) in pairs)]
    files.write_text(folder / "identity_CelebA.txt", numbers)
    files.write_text(folder / "list_identity_celeba.txt", "\n".join(lines) + "\n")
    return len(rows), len(people)


def copy_repository(out):
    """Copy the files that the commands of docs/reproduce.md need to `out`, with data/ as it is after cloning."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        source, target = files.ROOT / name, out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        elif source.exists():
            shutil.copy(source, target)


def build(out, world, seed=0):
    """Build everything in the folder `out`, which must not exist; returns one line about what was made."""
    if out.exists():
        raise SlugError(f"{out} exists; delete it, so that its commands start with an empty data/")
    files.existing(world / "world.json", "embedded world", "build it with: python src/demo/build_world.py")
    rng = np.random.default_rng(seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            part = Path(temporary) / out.name
            copy_repository(part)
            objects, classes = write_imagenet(part / "data/ImageNet", world, rng)
            faces, people = write_celeba(part / "data/celeba", world, rng)
            shutil.copytree(world / "UnlearnCanvas", part / "data/UnlearnCanvas")
            shutil.copytree(part / "data/models/uncanvas", part / "data/UnlearnCanvas/classifiers")
            clip = part / "data/models/mini-clip-hf"
            convert_clip.convert(part / "data/models/mini-clip", clip)
            convert_sd.assemble(part / "data/models/mini-sd", clip, part / "data/models/mini-sd-pipeline")
            shutil.copytree(world / "laion/laion400m", part / "data/laion/laion400m")
            shutil.copytree(world / "cc3m", part / "data/cc3m")
            part.rename(out)
    except OSError as err:
        raise SlugError(f"cannot write {out}: {err.strerror or err}; check the folder's permissions and space") from err
    return f"ImageNet: {objects} pictures of {classes} classes; CelebA: {faces} pictures of {people} identities"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/standin-clone", help="folder to make")
    parser.add_argument("--world", default="data/demo", help="folder of the embedded world")
    parser.add_argument("--seed", type=cli.within(cli.Seed), default=0, help="seed of all random draws")
    args = parser.parse_args(argv)
    out = files.resolve(args.out)
    print(f"{build(out, files.resolve(args.world), args.seed)} -> {out}")


if __name__ == "__main__":
    cli.exit_with(main)
