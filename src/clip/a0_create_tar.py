"""Curate forget sets: find the pairs that name a person or thing and write them as a tar.

Examples: python src/clip/a0_create_tar.py --name Elon_Musk Jeff_Bezos --laion-dir data/laion/laion400m
          python src/clip/a0_create_tar.py --name Elon_Musk Jeff_Bezos --download       (LAION's metadata, no shards)
          python src/clip/a0_create_tar.py --name Elon_Musk --csv mine/pairs.csv        (columns image, caption)
          python src/clip/a0_create_tar.py --name Elon_Musk --image-folder mine         (pictures in mine/Elon_Musk/)
Reads the metadata first (large metadata in --workers processes, or on a cluster), then only the pictures it needs. Writes
{tar-dir}/{name}.tar and the pictures in {image-dir}/{name}/. Names match as whole words, in any case (slug.data.names).
A run that was stopped resumes where it was. A whole tar that is there already is kept, whatever it was made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slug import cli, files
from slug.cli import Bits, Count, Folder, Positive, flag, group
from slug.data.settings import Download
from slug.errors import SlugError
from slug.settings import Run

if TYPE_CHECKING:
    from slug.data.sources import Unit


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    name: tuple[str, ...] = flag(help="names to look for; underscores stand for spaces", parse=files.checked_name)
    laion_dir: str = flag("data/laion/laion400m", "folder of NNNNN.parquet and NNNNN.tar", exclusive="source")
    csv: str = flag("", "take pairs from this file: columns image (relative to the file) and caption", exclusive="source")
    image_folder: str = flag("", "take all pictures of its subfolders {name}", exclusive="source")
    download: bool = flag(False, "fetch the pictures of metadata rows with the names, then curate", exclusive="source")
    tar_dir: Folder = flag("data/tar_files", "folder of the tars")
    image_dir: Folder = flag("data/laion/laion400m_obj", "folder of the folders of pictures")
    known_names: str = flag("", "file of names, one in each line; the longest name in a caption counts")
    max_count: Count = flag(500, "the largest number of pairs for each name")
    near_duplicates: Bits = flag(-1, "leave out pictures whose 64 hash bits differ in at most this many, e.g. 3")
    force: bool = flag(False, "replace tars that are there already")
    named_dir: str = flag("data/laion/named", "where --download keeps the shards it fetches")
    rows_per_pair: Positive = flag(3.0, "rows that --download tries for each name, as a multiple of --max-count")
    fetching: Download = group(Download)


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def source_of(settings: Settings, names: list[str], known: list[str]) -> "tuple[list[Unit], Path]":
    """The units to curate, and where they come from."""
    from slug.data import download, sources

    if settings.csv:
        path = files.existing(settings.csv, "CSV of pairs", "give --csv")
        return [sources.Table(path)], path
    if settings.image_folder:
        root = files.existing(settings.image_folder, "image folder", "give --image-folder")
        return sources.folders(root, names), root
    if settings.download:
        limit, root = round(settings.rows_per_pair * settings.max_count), files.check_writable(settings.named_dir)
        how = {"known": known, "limit": limit, "workers": settings.run.workers}
        folder, rows, got = download.fetch_named(names, root, settings.fetching, **how)
        print(f"rows tried: {', '.join(f'{n}: {c}' for n, c in rows.items())}; {got.pictures} pictures fetched -> {folder}")
        return sources.shards(folder), folder
    laion = files.existing(settings.laion_dir, "shard folder", "give --laion-dir, or run scripts/download_laion400m.sh")
    return sources.shards(laion), laion


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.data import curation
    from slug.data.names import distinct
    from slug.data.pairs import is_whole_tar

    known = []
    if settings.known_names:
        path = files.existing(settings.known_names, "list of known names", "or leave out --known-names")
        known = files.read_text(path).splitlines()
    names = distinct(settings.name)
    tar_dir, image_dir = files.check_writable(settings.tar_dir), files.check_writable(settings.image_dir)
    work = files.check_writable(settings.run.result_dir) / "curation"
    tars = {name: tar_dir / f"{files.name_stem(name)}.tar" for name in names}
    for name in [n for n in names if not settings.force and is_whole_tar(tars[n])]:
        print(f"{name}: kept {tars[name]} (to make it anew, give --force or remove it)")
        names.remove(name)
    if not names:
        return
    units, where = source_of(settings, names, known)
    run, distributor = settings.run, settings.fetching.distributor
    how = curation.How(settings.max_count, known, settings.near_duplicates, run.workers, distributor)
    found = curation.curate(units, names, tar_dir, image_dir, work, how)
    for result in found:
        print(f"{result} -> {tars[result.name]}" if result.pairs else result)
    if not all(r.pairs for r in found):
        raise SlugError(curation.reasons(found, where, folder=bool(settings.image_folder)))


if __name__ == "__main__":
    cli.exit_with(main)
