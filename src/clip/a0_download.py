"""Fetch LAION-400M's pictures into shards, by img2dataset with the paper's settings.

Example: python src/clip/a0_download.py --metadata-dir data/laion/metadata --laion-dir data/laion/laion400m
The metadata (columns URL and TEXT, or url and caption; NSFW, similarity and LICENSE are kept) must be there already
(data/README.md). Addresses other than http and https are left out. A run that was stopped resumes where it was. To fetch
only the pictures of some names, use a0_create_tar.py --download.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Folder, flag, group
from slug.data.settings import Download
from slug.settings import Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    laion_dir: Folder = flag("data/laion/laion400m", "folder of the shards")
    fetching: Download = group(Download)


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.data import download

    out = files.resolve(settings.laion_dir)
    got = download.fetch(files.resolve(settings.fetching.metadata_dir), out, settings.fetching)
    lost = f"{got.failed} could not be fetched, {got.broken} are no pictures"
    lost += f", {got.refused} more rows have no http or https address" if got.refused else ""
    print(f"{got.pictures} of {got.rows} pictures in {got.shards} shards ({lost}) -> {out}")


if __name__ == "__main__":
    cli.exit_with(main)
