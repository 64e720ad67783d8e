"""Official downloads brought into the layouts that slug.data reads: ImageNet's validation archives, CelebA's lists."""

import collections
import difflib
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

from torchvision.datasets import imagenet
from torchvision.datasets.utils import check_integrity

from slug import files, progress
from slug.data import evaluation_sets
from slug.data.names import clean_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError, brief

VAL_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
REGISTER = "register at image-net.org and download it again"


# ----------------------------------------------------------------------------------------------------------- ImageNet


def devkit_labels(devkit: Path) -> list[str]:
    """The WordNet id of each validation picture: picture number i (from 1) at index i - 1.

    torchvision's parser reads the devkit. Class ids in it count from 1 and do not follow the order of the WordNet ids.
    SlugError: the archive is damaged or no devkit.
    """
    name, _ = official = imagenet.ARCHIVE_META["devkit"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            imagenet.ARCHIVE_META["devkit"] = (name, None)  # the parser has no argument to accept any checksum
            imagenet.parse_devkit_archive(folder, str(devkit.resolve()))
            wnids = imagenet.load_meta_file(folder)[1]
        except (OSError, EOFError, tarfile.TarError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as err:
            text = brief(err)
            raise SlugError(f"{devkit} is not ImageNet's devkit ({type(err).__name__}: {text}); {REGISTER}") from err
        finally:
            imagenet.ARCHIVE_META["devkit"] = official
    strange = sorted(set(wnids) - set(evaluation_sets.imagenet_names()))
    if strange or not wnids:
        raise SlugError(f"{devkit} has labels outside ImageNet-1k ({', '.join(strange[:3]) or 'none at all'}); {REGISTER}")
    return wnids


def unpack_imagenet(tar: Path, devkit: Path, val: Path, *, checksum: bool = True) -> tuple[int, int, bool]:
    """Unpack ILSVRC2012_img_val.tar into `val`/{WordNet id}/, by the labels of the devkit.

    The pictures go to a folder beside `val` that is renamed when all are there; a run that was stopped resumes there.
    `checksum`: check that the archives are the official ones. Returns (pictures, classes, whether anything was done).
    SlugError: an archive is damaged or another one, `val` holds something else, or the disk is full.
    """
    for path, kind in ((devkit, "devkit"), (tar, "val")) if checksum else ():
        if not check_integrity(path, imagenet.ARCHIVE_META[kind][1]):
            what = f"{path} is not the official archive, by its checksum"
            raise SlugError(f"{what}; {REGISTER}, or accept it with --any-archive")
    wnids = devkit_labels(devkit)
    classes = len(set(wnids))
    if val.exists():
        missing = [i for i, w in enumerate(wnids, 1) if not (val / w / f"ILSVRC2012_val_{i:08d}.JPEG").is_file()]
        if missing:
            raise SlugError(f"{val} exists but lacks {len(missing)} of {len(wnids)} pictures; move it away and run again")
        return len(wnids), classes, False
    part = val.with_name(f".{val.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        _unpack(tar, wnids, part)
        for stale in part.rglob(".*.part"):  # of a run that was killed
            stale.unlink()
        os.replace(part, val)
    except (tarfile.TarError, EOFError) as err:
        raise SlugError(f"{tar} is not a whole tar file ({err}); {REGISTER}") from err
    except OSError as err:
        raise SlugError(f"cannot write {val}: {err.strerror or err}; check the folder's permissions and space") from err
    return len(wnids), classes, True


def _unpack(tar: Path, wnids: list[str], folder: Path) -> None:
    """Write the pictures of a tar into `folder`/{WordNet id}/, except those that are there already."""
    seen = set()
    with TarMembers(tar) as members:
        for member in progress.bar(members, desc="ImageNet", unit="picture", total=len(wnids)):
            name = PurePosixPath(member).name
            match = VAL_PICTURE.fullmatch(name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(wnids):
                raise SlugError(f"{tar} holds {member}, for which the devkit has no label; {REGISTER}")
            # Label by the number in the name: a missing picture must not shift the labels of those after it.
            place = folder / wnids[number - 1] / name
            seen.add(number)
            if not (place.is_file() and place.stat().st_size == members.places[member][1]):
                with files.replacing(place) as temporary:
                    temporary.write_bytes(members[member])
    if len(seen) < len(wnids):
        raise SlugError(f"{tar} holds {len(seen)} of {len(wnids)} pictures; {REGISTER}")


# ------------------------------------------------------------------------------------------------------------- CelebA


class Identities(NamedTuple):
    """What CelebA's lists and pictures contain."""

    chosen: list[str]  # the identities to show
    counts: dict[str, int]  # pictures on disk of each identity
    rows: int  # of list_identity_celeba.txt
    missing: int  # rows whose picture is not on disk
    shared: list[str]  # names with several numbers in identity_CelebA.txt; one class each, since they share a prompt
    torn: list[str]  # numbers with several names


def choose_identities(root: Path, *, count: int = 100, minimum: int = 4, always: Iterable[str] = ()) -> Identities:
    """Choose the `count` identities with the most pictures on disk (ties by name), and those in `always`.

    If identity_CelebA.txt is there as well, its numbers are compared with the names. A chosen identity has at least
    `minimum` pictures, since both splits share them; forget names, in `always`, need two. SlugError: a list is missing or
    damaged, there are no pictures, or nobody has a name in `always`.
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
            close = difflib.get_close_matches(clean_name(asked).casefold(), by_folded, n=3)
            similar = f"; similar names: {', '.join(by_folded[n] for n in close)}" if close else ""
            raise SlugError(f"nobody in {root}/list_identity_celeba.txt is called {clean_name(asked)!r}{similar}")
        if counts[name] < 2:
            raise SlugError(
                f"{root} has {counts[name]} pictures of {name}; two are needed, one for validation and one for the test"
            )
        chosen += [name] if name not in chosen else []
    shared, torn = _compare_numbers(root / "identity_CelebA.txt", identity)
    return Identities(chosen, dict(counts), len(identity), missing, shared, torn)


def _compare_numbers(path: Path, identity: dict[str, str]) -> tuple[list[str], list[str]]:
    """(names with several numbers, numbers with several names); both empty without identity_CelebA.txt."""
    if not path.is_file():
        return [], []
    by_name: dict[str, set[str]] = {}
    by_number: dict[str, set[str]] = {}
    for image, number in evaluation_sets.identity_rows(path).items():
        if image in identity:
            by_name.setdefault(identity[image], set()).add(number)
            by_number.setdefault(number, set()).add(identity[image])
    if not by_number:
        raise SlugError(f"{path} and list_identity_celeba.txt have no picture in common; get both from CelebA's authors")
    shared, torn = ([k for k, v in found.items() if len(v) > 1] for found in (by_name, by_number))
    return sorted(shared), sorted(torn)


def write_identities(root: Path, chosen: list[str], *, force: bool = False) -> tuple[Path, bool]:
    """Write frequent_celebs.txt, with underscores for spaces; returns its path and whether it was written.

    A file that names all of `chosen` already is the user's choice and is kept. SlugError if it lacks some.
    """
    path = root / "frequent_celebs.txt"
    if path.is_file() and not force:
        known = {clean_name(line) for line in files.read_text(path).splitlines()}
        lacking = [name for name in chosen if name not in known]
        if lacking:
            raise SlugError(f"{path} exists but lacks {len(lacking)} identities, e.g. {lacking[0]}; replace it with --force")
        return path, False
    files.write_text(path, "".join(f"{name.replace(' ', '_')}\n" for name in chosen))
    return path, True
