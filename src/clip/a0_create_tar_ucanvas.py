"""Make forget sets of styles and objects from UnlearnCanvas's pictures.

Example: python src/clip/a0_create_tar_ucanvas.py                            (every style and object)
         python src/clip/a0_create_tar_ucanvas.py --style Van_Gogh --object Dogs
Reads <Style>/<Object>/<n>.jpg in --canvas. Writes {tar-dir}/{style or object}.tar with members {object}_{style}_{n}.jpg and
.txt and captions "A {object} image in {style} style." Broken pictures are left out and counted. A tar of these pictures that
is there already is kept; another one is refused.
"""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slug import cli, files
from slug.cli import Count, Folder, flag, group
from slug.errors import SlugError
from slug.settings import CANVAS, Concepts, Run


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    canvas: str = flag(f"{CANVAS}/data", "folder of <Style>/<Object>/<n>.jpg")
    concepts: Concepts = group(Concepts)
    tar_dir: Folder = flag("data/tar_files", "folder of the tars")
    max_count: Count = flag(500, "the largest number of pictures in a tar, spread over its cells")
    force: bool = flag(False, "replace tars that are there already")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def pictures(folder: Path, kind: str, name: str, limit: int) -> list[tuple[str, str, Path]]:
    """[(style, object, path)] of a concept: the first picture of each cell, then the second of each, up to `limit`."""
    from slug.data.images import listed

    pattern = f"{name}/*" if kind == "style" else f"*/{name}"
    cells = [listed(cell)[0] for cell in sorted(folder.glob(pattern)) if cell.is_dir()]
    turns = [(n, i) for i, cell in enumerate(cells) for n in range(len(cell))]
    chosen = [cells[i][n] for n, i in sorted(turns)[:limit]]
    return [(*p.relative_to(folder).parts[:2], p) for p in chosen]


def check_own(tar: Path, keys: set[str]) -> None:
    """SlugError unless the members of a tar have these keys."""
    from slug.data.pairs import TarMembers

    try:
        with TarMembers(tar) as members:
            there = {name.rsplit(".", 1)[0] for name in members}
    except (OSError, tarfile.TarError):
        there = set()
    if not there or there - keys:
        raise SlugError(f"{tar} is damaged or of other pictures; give another --tar-dir, or --force to replace it")


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    import webdataset as wds

    from slug import progress
    from slug.data import curation
    from slug.data.names import plain_name
    from slug.evaluation import canvas_prompts

    folder = files.existing(settings.canvas, "UnlearnCanvas", "see data/README.md, Styles")
    styles, objects = canvas_prompts.grid(folder)
    every = [("style", s) for s in styles] + [("object", o) for o in objects]
    for kind, name in progress.bar(canvas_prompts.concepts(settings.concepts) or every, unit="concept"):
        (name,) = canvas_prompts.among([name], styles if kind == "style" else objects, kind)
        tar = files.resolve(settings.tar_dir) / f"{files.name_stem(name)}.tar"
        found = pictures(folder, kind, name, settings.max_count)
        keys = [f"{thing}_{style}_{path.stem}" for style, thing, path in found]
        if tar.exists() and not settings.force:
            check_own(tar, set(keys))
            progress.write(f"{name}: kept {tar}")
            continue
        usable = [curation.usable(path.read_bytes()) for *_, path in found]
        broken = usable.count(None)
        if broken == len(usable):
            raise SlugError(f"none of the {broken} pictures of {name} in {folder} can be decoded; get them again")
        with files.replacing(tar) as temporary, wds.TarWriter(str(temporary), encoder=False, mtime=0) as out:
            for key, (style, thing, _), made in zip(keys, found, usable, strict=True):
                if made is not None:
                    caption = f"A {plain_name(thing)} image in {plain_name(style)} style."
                    out.write({"__key__": key, "jpg": made[0], "txt": caption.encode()})
        progress.write(f"{name}: {len(usable) - broken} pictures, {broken} broken -> {tar}")


if __name__ == "__main__":
    cli.exit_with(main)
