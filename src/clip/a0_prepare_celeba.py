"""Choose the identities whose pictures are evaluated: the most frequent ones of CelebA's list, and the forget names.

Example: python src/clip/a0_prepare_celeba.py --name Elon_Musk Taylor_Swift
Needs list_identity_celeba.txt (names, on request from CelebA's authors) and img_align_celeba/; identity_CelebA.txt (numbers)
is held against it where it is there. Writes data/celeba/frequent_celebs.txt.
"""

from slug import cli, files
from slug.data import preparation


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--data-root", default="data/celeba", help="folder with img_align_celeba and its lists")
    parser.add_argument("--name", nargs="*", default=[], help="names that are shown in any case: the forget names")
    parser.add_argument("--count", type=int, default=100, help="how many of the most frequent identities")
    parser.add_argument("--min-pictures", type=int, default=4, help="fewest pictures of one of these")
    parser.add_argument("--force", action="store_true", help="write frequent_celebs.txt anew")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    root = files.existing(args.data_root, "CelebA folder", "see data/README.md for what goes there")
    found = preparation.choose_identities(root, count=args.count, minimum=args.min_pictures, always=args.name)
    path, written = preparation.write_identities(root, found.chosen, force=args.force)
    print(f"{len(found.counts)} identities, {found.rows} pictures in the list, {found.missing} of them not there")
    for what, names in (("names of several numbers", found.shared), ("numbers of several names", found.torn)):
        if names:
            print(f"note: {len(names)} {what}, e.g. {names[0]}")
    pictures = [found.counts[name] for name in found.chosen]
    span = f"{min(pictures)} to {max(pictures)} pictures each" if pictures else "none has pictures enough"
    print(f"{'' if written else 'kept: '}{len(found.chosen)} identities are shown, {span} -> {path}")


if __name__ == "__main__":
    cli.exit_with(main)
