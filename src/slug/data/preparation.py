"""Official downloads made into what slug.data reads: ImageNet's validation archives, CelebA's identity lists."""

import collections
import contextlib
import difflib
import os
import re
import tarfile
import tempfile
from pathlib import PurePosixPath
from typing import NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

from torchvision.datasets import imagenet
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from slug import files
from slug.data import evaluation_sets
from slug.data.names import clean_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError, brief

VAL_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
WHERE = "register at image-net.org and download it again"


# ----------------------------------------------------------------------------------------------------------- ImageNet


@contextlib.contextmanager
def _any_devkit():
    """Within the context torchvision's parser takes a devkit of any checksum; it has no argument for that."""
    name, md5 = imagenet.ARCHIVE_META["devkit"]
    imagenet.ARCHIVE_META["devkit"] = (name, None)
    try:
        yield
    finally:
        imagenet.ARCHIVE_META["devkit"] = (name, md5)


def _check(path, kind):
    """SlugError unless a file is the official archive (`val` or `devkit`), by torchvision's checksum."""
    if not check_integrity(path, imagenet.ARCHIVE_META[kind][1]):
        raise SlugError(f"{path} is not the official archive, by its checksum; {WHERE}, or take it as it is: --any-archive")


def devkit_labels(devkit):
    """The WordNet id of every validation picture: a list of N, picture number i (from 1) at index i - 1.

    torchvision's parser reads the devkit: its class ids count from 1, and not in the order of the WordNet ids. Raises
    SlugError if the archive is damaged or no devkit.
    """
    with tempfile.TemporaryDirectory() as folder, _any_devkit():
        try:
            imagenet.parse_devkit_archive(folder, str(devkit.resolve()))
            wnids = imagenet.load_meta_file(folder)[1]
        except (OSError, EOFError, tarfile.TarError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as err:
            text = brief(err)
            raise SlugError(f"{devkit} is not ImageNet's devkit ({type(err).__name__}: {text}); {WHERE}") from err
    strange = sorted(set(wnids) - set(evaluation_sets.imagenet_names()))
    if strange or not wnids:
        raise SlugError(f"{devkit} has labels that are not of ImageNet-1k ({', '.join(strange[:3]) or 'none'}); {WHERE}")
    return wnids


def unpack_imagenet(tar, devkit, val, *, checksum=True):
    """Put the pictures of ILSVRC2012_img_val.tar into `val`/{WordNet id}/, as the devkit labels them.

    They go to a folder beside `val`, which takes its name when all are there; a run that was stopped goes on from there.

    Args:
        tar, devkit: the official archives.
        checksum: check that they are.
    Returns:
        (pictures, classes, whether anything was done).
    Raises:
        SlugError: an archive is damaged or another one, `val` holds something else, or there is no space.
    """
    for path, kind in ((devkit, "devkit"), (tar, "val")) if checksum else ():
        _check(path, kind)
    wnids = devkit_labels(devkit)
    counts = len(wnids), len(set(wnids))
    if val.exists():
        missing = [i for i, w in enumerate(wnids, 1) if not (val / w / f"ILSVRC2012_val_{i:08d}.JPEG").is_file()]
        if missing:
            raise SlugError(f"{val} is there but lacks {len(missing)} of {len(wnids)} pictures; move it away and run again")
        return *counts, False
    part, seen = val.with_name(f".{val.name}.part"), set()
    try:
        part.mkdir(parents=True, exist_ok=True)
        with TarMembers(tar) as members:
            for member in tqdm(members, desc="ImageNet", unit="picture", total=len(wnids)):
                name = PurePosixPath(member).name
                number = VAL_PICTURE.fullmatch(name)
                if not number or not 1 <= int(number[1]) <= len(wnids):
                    raise SlugError(f"{tar} holds {member}, which the devkit has no label for; {WHERE}")
                # By the number in its name: a lacking picture must not shift the labels of those after it.
                place = part / wnids[int(number[1]) - 1] / name
                seen.add(int(number[1]))
                if not (place.is_file() and place.stat().st_size == members.places[member][1]):
                    with files.replacing(place) as temporary:
                        temporary.write_bytes(members[member])
        if len(seen) < len(wnids):
            raise SlugError(f"{tar} holds {len(seen)} of {len(wnids)} pictures; {WHERE}")
        for stale in part.rglob(".*.part"):  # of a run that was killed
            stale.unlink()
        os.replace(part, val)
    except (tarfile.TarError, EOFError) as err:
        raise SlugError(f"{tar} is not a whole tar file ({err}); {WHERE}") from err
    except OSError as err:
        raise SlugError(f"cannot write {val}: {err.strerror or err}; check the folder's permissions and space") from err
    return *counts, True


# ------------------------------------------------------------------------------------------------------------- CelebA


class Identities(NamedTuple):
    """What CelebA's lists come to."""

    chosen: list[str]  # the identities to show
    counts: dict[str, int]  # pictures on disk by identity
    rows: int  # of list_identity_celeba.txt
    missing: int  # rows whose picture is not there
    shared: list[str]  # names that several numbers of identity_CelebA.txt carry: one class, since one prompt
    torn: list[str]  # numbers that carry several names


def choose_identities(root, *, count=100, minimum=4, always=()):
    """The `count` identities with the most pictures on disk (ties by name), and those of `always`.

    Where identity_CelebA.txt is there too, its numbers are held against the names.

    Args:
        root: CelebA folder.
        minimum: fewest pictures of an identity that is shown: the two halves of the evaluation share them.
        always: names shown however few pictures they have, as long as there are two: the forget names.
    Raises:
        SlugError: a list is missing or damaged, there are no pictures, or nobody is called so.
    """
    identity = evaluation_sets.celeba_names(root)
    folder = files.existing(root / "img_align_celeba", "folder of aligned pictures", "unpack img_align_celeba.zip there")
    there = set(os.listdir(folder))
    counts = collections.Counter({name: 0 for name in identity.values()})
    counts.update(name for image, name in identity.items() if image in there)
    missing = sum(image not in there for image in identity)
    if missing == len(identity):
        raise SlugError(f"{folder} holds none of the {missing} pictures of the identity list; unpack img_align_celeba.zip")
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    chosen = [name for name in ranked[:count] if counts[name] >= minimum]
    by_folded = {name.casefold(): name for name in counts}
    for asked in always:
        name = by_folded.get(clean_name(asked).casefold())
        if name is None:
            near = difflib.get_close_matches(clean_name(asked).casefold(), by_folded, n=3)
            near = f"; near: {', '.join(by_folded[n] for n in near)}" if near else ""
            raise SlugError(f"nobody in {root}/list_identity_celeba.txt is called {clean_name(asked)!r}{near}")
        if counts[name] < 2:
            raise SlugError(f"{root} has {counts[name]} pictures of {name}; it takes two to choose on one and report on one")
        chosen += [name] if name not in chosen else []
    shared, torn = _hold_against_numbers(root / "identity_CelebA.txt", identity)
    return Identities(chosen, dict(counts), len(identity), missing, shared, torn)


def _hold_against_numbers(path, identity):
    """(names that several numbers carry, numbers that carry several names); nothing where there is no such file."""
    if not path.is_file():
        return [], []
    by_name, by_number = {}, {}
    for image, number in evaluation_sets.identity_rows(path).items():
        if image in identity:
            by_name.setdefault(identity[image], set()).add(number)
            by_number.setdefault(number, set()).add(identity[image])
    if not by_number:
        raise SlugError(f"{path} and list_identity_celeba.txt have no picture in common; get both from CelebA's authors")
    shared, torn = ([k for k, v in found.items() if len(v) > 1] for found in (by_name, by_number))
    return sorted(shared), sorted(torn)


def write_identities(root, chosen, *, force=False):
    """Write frequent_celebs.txt, underscores for spaces. Returns (path, whether it was written).

    One that is there already and names all of `chosen` is the user's choice and stays. Raises SlugError if it lacks some.
    """
    path = root / "frequent_celebs.txt"
    if path.is_file() and not force:
        known = {clean_name(line) for line in files.read_text(path).splitlines()}
        lacking = [name for name in chosen if name not in known]
        if lacking:
            raise SlugError(
                f"{path} is there but lacks {len(lacking)} identities, e.g. {lacking[0]}; --force writes it anew"
            )
        return path, False
    files.write_text(path, "".join(f"{name.replace(' ', '_')}\n" for name in chosen))
    return path, True
