"""Choose the identities that are evaluated: the most frequent ones of CelebA's list, and the forget names.

Example: python src/clip/a0_prepare_celeba.py --name Elon_Musk Taylor_Swift
Needs list_identity_celeba.txt (names, on request from CelebA's authors) and img_align_celeba/. Where identity_CelebA.txt
(numbers) is there too, the two lists are compared. Writes data/celeba/frequent_celebs.txt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Count, Folder, flag, group
from slug.settings import Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    data_root: Folder = flag("data/celeba", "folder with img_align_celeba and its lists")
    name: tuple[str, ...] = flag(
        (), "names that are shown in any case: the forget names", nargs="*", parse=files.checked_name
    )
    count: Count = flag(100, "number of most frequent identities")
    min_pictures: Count = flag(4, "fewest pictures of such an identity")
    force: bool = flag(False, "replace frequent_celebs.txt")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.data import preparation

    root = files.existing(settings.data_root, "CelebA folder", "see data/README.md for what goes there")
    limits = {"count": settings.count, "minimum": settings.min_pictures}
    found = preparation.choose_identities(root, always=settings.name, **limits)
    path, written = preparation.write_identities(root, found.chosen, force=settings.force)
    print(f"{len(found.counts)} identities; {found.missing} of the list's {found.rows} pictures are missing")
    for what, names in (("names have several numbers", found.shared), ("numbers have several names", found.torn)):
        if names:
            print(f"note: {len(names)} {what}, e.g. {names[0]}")
    pictures = [found.counts[name] for name in found.chosen]
    span = f"{min(pictures)} to {max(pictures)} pictures each" if pictures else "none has enough pictures"
    print(f"{'' if written else 'kept: '}{len(found.chosen)} identities are shown, {span} -> {path}")


if __name__ == "__main__":
    cli.exit_with(main)
