"""Curate forget sets: find the pairs that name a person or thing in LAION-style shards and write them as a tar.

Example: python src/clip/a0_create_tar.py --name Elon_Musk Jeff_Bezos --laion-dir data/laion/laion400m
Reads shard metadata (NNNNN.parquet) first, then only the tar members it needs. Writes {tar-dir}/{name}.tar and the
pictures under {image-dir}/{name}/. Matching: whole words, any case; see slug.data.Matcher.
"""

from slug import cli, curation, files
from slug.errors import SlugError


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--name", nargs="+", required=True, help="names to look for, underscores for spaces")
    parser.add_argument("--laion-dir", default="data/laion/laion400m", help="folder of NNNNN.parquet and NNNNN.tar")
    parser.add_argument("--tar-dir", default="data/tar_files", help="where {name}.tar goes")
    parser.add_argument("--image-dir", default="data/laion/laion400m_obj", help="where the folder of pictures goes")
    parser.add_argument("--known-names", default="", help="file of names, one a line: the longest name in a caption wins")
    parser.add_argument("--max-count", type=int, default=500, help="at most this many pairs a name")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cli.settle(args)
    laion = files.existing(args.laion_dir, "shard folder", "give --laion-dir, or run scripts/download_laion400m.sh")
    known = []
    if args.known_names:
        path = files.existing(args.known_names, "list of known names", "leave out --known-names to do without")
        known = path.read_text(encoding="utf-8").splitlines()
    names = [files.safe_name(n.replace(" ", "_")) for n in dict.fromkeys(args.name)]
    found = curation.collect(laion, names, max_count=args.max_count, known=known)
    for name, (pairs, result) in found.items():
        path = curation.write(pairs, name, files.resolve(args.tar_dir), files.resolve(args.image_dir))
        where = ", ".join(f"{s}: {n}" for s, n in result.shards.items()) or "no shard"
        print(f"{name}: {result.pairs} pairs ({where}), {result.broken} broken pictures skipped -> {path}")
    empty = [n for n, (pairs, _) in found.items() if not pairs]
    if empty:
        raise SlugError(f"no caption in {laion} names {', '.join(empty)}; nothing was written for it: check the spelling")


if __name__ == "__main__":
    cli.exit_with(main)
