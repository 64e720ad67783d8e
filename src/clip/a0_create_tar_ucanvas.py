"""Forget sets of styles and objects out of UnlearnCanvas's pictures.

Example: cd src/clip; python a0_create_tar_ucanvas.py                            (every style and object)
         python src/clip/a0_create_tar_ucanvas.py --style Van_Gogh --object Dogs
Reads --canvas, <Style>/<Object>/<n>.jpg; writes --tar-dir/{style or object}.tar, members {object}_{style}_{n}.jpg and .txt,
captions "A {object} image in {style} style." Broken pictures are left out and counted; a tar of these pictures that is there
is kept, another is refused.
"""

import tarfile

import webdataset as wds
from tqdm import tqdm

from slug import cli, files
from slug.data import curation
from slug.data.images import PICTURES
from slug.data.names import plain_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError
from slug.evaluation import canvas_prompts


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--canvas", default="data/UnlearnCanvas/data", help="folder of <Style>/<Object>/<n>.jpg")
    canvas_prompts.add_concept_flags(parser, "only these; without either: all of the folder")
    parser.add_argument("--tar-dir", default="data/tar_files", help="where the tars go")
    parser.add_argument("--max-count", type=int, default=500, help="pictures of a tar, spread over its cells")
    parser.add_argument("--force", action="store_true", help="write again what is there")
    return parser.parse_args(argv)


def pictures(folder, kind, name, limit):
    """[(style, object, path)] of a concept: the first pictures of all cells, then the second ones, up to `limit`."""
    pattern = f"{name}/*" if kind == "style" else f"*/{name}"
    cells = [sorted(p for p in cell.iterdir() if p.suffix[1:].lower() in PICTURES) for cell in sorted(folder.glob(pattern))]
    turns = [(i, n) for i, cell in enumerate(cells) for n in range(len(cell))]
    chosen = [cells[i][n] for i, n in sorted(turns, key=lambda turn: turn[::-1])[:limit]]
    return [(p.parent.parent.name, p.parent.name, p) for p in chosen]


def check_own(tar, found):
    """SlugError unless all members of a tar are of `found`, [(style, object, path)]."""
    try:
        with TarMembers(tar) as members:
            keys = {name.rsplit(".", 1)[0] for name in members}
    except (OSError, tarfile.TarError):
        keys = set()
    if not keys or keys - {f"{thing}_{style}_{path.stem}" for style, thing, path in found}:
        raise SlugError(f"{tar} is damaged or of other pictures; give another --tar-dir, or --force to make it anew")


def main(argv=None):
    args = parse_args(argv)
    folder = files.existing(args.canvas, "UnlearnCanvas", "see data/README.md, Styles")
    styles, objects = canvas_prompts.grid(folder)
    wanted = canvas_prompts.concepts(args) or [("style", s) for s in styles] + [("object", o) for o in objects]
    for kind, name in tqdm(wanted, unit="concept"):
        (name,) = canvas_prompts.among([name], styles if kind == "style" else objects, kind)
        tar = files.resolve(args.tar_dir) / f"{name}.tar"
        found = pictures(folder, kind, name, args.max_count)
        if tar.exists() and not args.force:
            check_own(tar, found)
            tqdm.write(f"there, kept: {tar}")
            continue
        usable = [(*cell, p, curation.usable(p.read_bytes())) for *cell, p in found]
        broken = sum(made is None for *_, made in usable)
        if broken == len(usable):
            raise SlugError(f"none of the {broken} pictures of {name} in {folder} can be decoded")
        with files.replacing(tar) as temporary, wds.TarWriter(str(temporary), encoder=False, mtime=0) as out:
            for style, thing, path, made in usable:
                if made is not None:
                    caption = f"A {plain_name(thing)} image in {plain_name(style)} style."
                    out.write({"__key__": f"{thing}_{style}_{path.stem}", "jpg": made[0], "txt": caption.encode()})
        tqdm.write(f"{name}: {len(usable) - broken} pictures, {broken} broken -> {tar}")


if __name__ == "__main__":
    cli.exit_with(main)
