"""Fetch LAION-400M's pictures into shards, by img2dataset with the paper's settings.

Example: python src/clip/a0_download.py --metadata-dir data/laion/metadata --laion-dir data/laion/laion400m
The metadata (columns URL, TEXT, NSFW, similarity, LICENSE) must be there: data/README.md. Run again, it goes on where it was
stopped. To fetch only the pictures of some names: a0_create_tar.py --download.
"""

from slug import cli, files
from slug.data import download


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--laion-dir", default="data/laion/laion400m", help="where shards go")
    download.add_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    got = download.fetch(args.metadata_dir, files.resolve(args.laion_dir), **download.settings(args))
    print(
        f"{got.pictures} of {got.rows} pictures in {got.shards} shards ({got.failed} could not be fetched, {got.broken} are "
        f"no pictures) -> {files.resolve(args.laion_dir)}"
    )


if __name__ == "__main__":
    cli.exit_with(main)
