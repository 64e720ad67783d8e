"""A forget set made by the pipeline itself: pictures of a concept with their prompts as captions.

Example: python src/sd/b0_generate_forget_set.py --pipeline sd-legacy/stable-diffusion-v1-5 --object iron_man mickey_mouse
         python src/sd/b0_generate_forget_set.py --style Van_Gogh --prompts data/UnlearnCanvas/prompts.csv
Writes data/tar_files/{name}.tar and the image folder, as a0_create_tar.py does. With --prompts the concept is asked for in
every cell of it; else by its name. A run that was stopped goes on where it was. A tar that is there is kept if it is of
this pipeline and these prompts, as {name}.json beside it says, else refused: pictures from elsewhere are not its own.
"""

import hashlib
import json
import shutil

from slug import cli, files
from slug.data import curation
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.models import diffusion

FIRST_SEED = 5000  # of the forget pictures: neither of the select nor of the test split


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    diffusion.add_flags(parser)
    canvas_prompts.add_concept_flags(parser)
    parser.add_argument("--prompts", default="", help="CSV of a0_create_prompts_uncanvas.py: its cells are asked for")
    parser.add_argument(
        "--template", nargs="+", default=["{}", "a photo of {}", "{}, digital art"], help="without --prompts"
    )
    parser.add_argument("--count", type=int, default=100, help="pictures of a concept")
    parser.add_argument("--tar-dir", default="data/tar_files", help="where the tars go")
    parser.add_argument("--image-dir", default="data/laion/laion400m_obj", help="where the pictures go")
    parser.add_argument("--force", action="store_true", help="make again what is there")
    return parser.parse_args(argv)


def asked(args, kind, name):
    """[(prompt, seed)] of a concept's pictures: its prompts in turn, a seed each."""
    if args.prompts:
        cells = canvas_prompts.read_requests(files.resolve(args.prompts))
        prompts = [r.prompt for r, mine in zip(cells, canvas_prompts.shows(kind, name, cells), strict=True) if mine]
    else:
        prompts = [t.format(plain_name(name)) for t in args.template]
    prompts = list(dict.fromkeys(prompts))
    if not prompts:
        raise SlugError(f"{args.prompts} has no {kind} {name!r}; check the spelling")
    return [(prompts[i % len(prompts)], FIRST_SEED + i) for i in range(args.count)]


def check_own(tar, mark):
    """SlugError unless `mark` stands beside a tar: it is of this pipeline, these prompts and these seeds."""
    made = tar.with_suffix(".json")
    if not made.is_file() or files.read_json(made) != mark:
        raise SlugError(
            f"{tar} is no forget set of this pipeline and these prompts; give another --tar-dir, or --force to make it anew"
        )


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    cli.check_result_dir(args)
    pipeline, tar_dir, image_dir = (
        diffusion.from_args(args, device),
        files.resolve(args.tar_dir),
        files.resolve(args.image_dir),
    )
    for kind, name in canvas_prompts.concepts(args):
        tar = tar_dir / f"{files.safe_name(name.replace(' ', '_'))}.tar"
        wanted = asked(args, kind, name)
        asked_hash = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
        mark = {"pipeline": pipeline.tag, "pipeline_hash": pipeline.hash(), "prompts_and_seeds": asked_hash}
        if tar.exists() and not args.force:
            check_own(tar, mark)
            print(f"there, kept: {tar}")
            continue
        stem = hashlib.sha256(json.dumps(mark).encode()).hexdigest()[:16]
        work = files.resolve(args.result_dir) / "sd" / "forget" / stem  # what a stopped run goes on from
        paths = diffusion.write_pictures(pipeline, wanted, work, desc=name)
        pairs = [(curation.usable(p.read_bytes())[0], prompt) for p, (prompt, _) in zip(paths, wanted, strict=True)]
        curation.write(pairs, tar.stem, tar_dir, image_dir)
        files.write_json(tar.with_suffix(".json"), mark)
        shutil.rmtree(work)
        print(f"{len(pairs)} pictures of {plain_name(name)} -> {tar}")


if __name__ == "__main__":
    cli.exit_with(main)
