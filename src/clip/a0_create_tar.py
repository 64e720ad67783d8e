"""Curate forget sets: find the pairs that name a person or thing and write them as a tar.

Examples: python src/clip/a0_create_tar.py --name Elon_Musk Jeff_Bezos --laion-dir data/laion/laion400m
          python src/clip/a0_create_tar.py --name Elon_Musk Jeff_Bezos --download       (LAION's metadata, no shards)
          python src/clip/a0_create_tar.py --name Elon_Musk --csv mine/pairs.csv        (columns image, caption)
          python src/clip/a0_create_tar.py --name Elon_Musk --image-folder mine         (pictures in mine/Elon_Musk/)
Reads metadata first (much of it by --workers processes, or on a cluster), then only the pictures it needs. Writes
{tar-dir}/{name}.tar and the pictures under {image-dir}/{name}/. Matching: whole words, any case; see slug.data.Matcher.
A run that was stopped goes on where it was; a whole tar that is there is kept, whatever it was made of.
"""

import tarfile

from slug import cli, files
from slug.data import curation, download
from slug.data.pairs import TarMembers
from slug.errors import SlugError


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--name", nargs="+", required=True, help="names to look for, underscores for spaces")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--laion-dir", default="data/laion/laion400m", help="folder of NNNNN.parquet and NNNNN.tar")
    source.add_argument(
        "--csv", default="", help="take pairs from this file instead: columns image (relative to it), caption"
    )
    source.add_argument("--image-folder", default="", help="take all pictures of its subfolders {name} instead")
    source.add_argument(
        "--download", action="store_true", help="fetch the pictures of metadata rows with the names, then curate"
    )
    parser.add_argument("--tar-dir", default="data/tar_files", help="where {name}.tar goes")
    parser.add_argument("--image-dir", default="data/laion/laion400m_obj", help="where the folder of pictures goes")
    parser.add_argument("--known-names", default="", help="file of names, one a line: the longest name in a caption wins")
    parser.add_argument("--max-count", type=int, default=500, help="at most this many pairs a name")
    parser.add_argument(
        "--near-duplicates", type=int, default=-1, help="leave out pictures that differ in so few of 64 hash bits, e.g. 3"
    )
    parser.add_argument("--force", action="store_true", help="write again what is there")
    parser.add_argument("--named-dir", default="data/laion/named", help="where --download keeps the shards it fetches")
    parser.add_argument("--rows-per-pair", type=float, default=3, help="rows a name that --download tries, by --max-count")
    download.add_flags(parser)
    return parser.parse_args(argv)


def whole(path):
    """Whether a tar is there and not cut off."""
    try:
        with TarMembers(path) as members:
            return bool(members)
    except (OSError, tarfile.TarError):
        return False


def source_of(args, names, known):
    """(the units to curate, where they come from)."""
    if args.csv:
        path = files.existing(args.csv, "CSV of pairs", "give --csv")
        return [curation.Table(path)], path
    if args.image_folder:
        root = files.existing(args.image_folder, "image folder", "give --image-folder")
        return curation.folders(root, names), root
    if args.download:
        limit = round(args.rows_per_pair * args.max_count)
        root = files.check_writable(args.named_dir)
        how = {"workers": args.workers, **download.settings(args)}
        folder, rows, got = download.fetch_named(args.metadata_dir, names, root, known=known, limit=limit, **how)
        print(f"rows tried: {', '.join(f'{n}: {c}' for n, c in rows.items())}; {got.pictures} pictures fetched -> {folder}")
        return curation.shards(folder), folder
    laion = files.existing(args.laion_dir, "shard folder", "give --laion-dir, or run scripts/download_laion400m.sh")
    return curation.shards(laion), laion


def main(argv=None):
    args = parse_args(argv)
    cli.settle(args)
    known = []
    if args.known_names:
        path = files.existing(args.known_names, "list of known names", "leave out --known-names to do without")
        known = files.read_text(path).splitlines()
    names = [files.safe_name(n.replace(" ", "_")) for n in dict.fromkeys(args.name)]
    tar_dir, image_dir = files.check_writable(args.tar_dir), files.check_writable(args.image_dir)
    work = cli.check_result_dir(args) / "curation"
    for name in [n for n in names if not args.force and whole(tar_dir / f"{n}.tar")]:
        print(f"there, kept: {tar_dir / name}.tar (to make it anew: --force, or remove it)")
        names.remove(name)
    if not names:
        return
    units, where = source_of(args, names, known)
    found = curation.curate(
        units,
        names,
        tar_dir,
        image_dir,
        work,
        max_count=args.max_count,
        known=known,
        near=args.near_duplicates,
        workers=args.workers,
        distributor=args.distributor,
    )
    for result in found:
        counts = [f"{u}: {n}" for u, n in result.units.items()]
        counts = ", ".join([*counts[:8], *([f"and {len(counts) - 8} more"] if len(counts) > 8 else [])]) or "no shard"
        left_out = f"{result.broken} broken pictures"
        left_out += f" and {result.duplicates} near-duplicates" if args.near_duplicates >= 0 else ""
        print(f"{result.name}: {result.pairs} pairs ({counts}), {left_out} skipped -> {tar_dir / result.name}.tar")
    empty = [r.name for r in found if not r.pairs]
    if empty:
        raise SlugError(f"no caption in {where} names {', '.join(empty)}; nothing was written for it: check the spelling")


if __name__ == "__main__":
    cli.exit_with(main)
