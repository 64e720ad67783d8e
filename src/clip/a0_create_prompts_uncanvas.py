"""The prompts of the UnlearnCanvas protocol as a CSV: every style and object in several seeds, those that choose apart from
those that report.

Example: python src/clip/a0_create_prompts_uncanvas.py
         python src/clip/a0_create_prompts_uncanvas.py --canvas data/demo/UnlearnCanvas/data --style Noto --object bell key
         python src/clip/a0_create_prompts_uncanvas.py --names iron_man mickey_mouse "a dog" --out data/sd_prompts.csv
Reads the folder names of --canvas, or takes --names, which are asked for without a style; writes
split,style,object,seed,prompt rows to --out.
"""

from slug import cli, files
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, unlearncanvas


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--canvas", default="data/UnlearnCanvas/data", help="folder of <Style>/<Object>/<n>.jpg")
    canvas_prompts.add_concept_flags(parser, "only these; without: all of the folder")
    parser.add_argument(
        "--names", nargs="+", default=[], help="ask for these names instead, without styles; no folder is read"
    )
    parser.add_argument(
        "--leave-out", default="", help='JSON with a list "left_out" of prompts that the pipeline never learned'
    )
    parser.add_argument("--classifiers", default="", help="folder of both classifiers: what they do not know is refused")
    parser.add_argument(
        "--test-seeds",
        type=int,
        nargs="+",
        default=[*canvas_prompts.TEST_SEEDS],
        help="of the test split, first cell",
    )
    parser.add_argument(
        "--validation-seeds",
        type=int,
        nargs="+",
        default=[*canvas_prompts.VALIDATION_SEEDS],
        help="of the validation split, first cell",
    )
    parser.add_argument("--shared-seeds", action="store_true", help="the same seeds in every cell, as published")
    parser.add_argument("--out", default="data/UnlearnCanvas/prompts.csv", help="file to write")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.names:
        styles, objects = [""], args.names
    else:
        styles, objects = canvas_prompts.grid(files.existing(args.canvas, "UnlearnCanvas", "see data/README.md, Styles"))
        styles, objects = (
            canvas_prompts.among(args.style, styles, "style"),
            canvas_prompts.among(args.object, objects, "object"),
        )
    seeds = {"test": args.test_seeds, "validation": args.validation_seeds, "shared": args.shared_seeds}
    found = canvas_prompts.requests(styles, objects, **seeds)
    if args.leave_out:
        skipped = files.read_json(files.existing(args.leave_out, "list of prompts", "give --leave-out"))
        if not isinstance(skipped, dict) or not isinstance(skipped.get("left_out"), list):
            raise SlugError(f"{args.leave_out} has no list left_out of prompts; give another --leave-out")
        found = [r for r in found if r.prompt not in skipped["left_out"]]
    if args.classifiers:  # told now, not after the gradients
        folder = files.existing(args.classifiers, "classifiers", "give --classifiers")
        unlearncanvas.check_known(found, canvas_classifiers.classifier_settings(folder)["labels"])
    canvas_prompts.write_requests(files.resolve(args.out), found)
    cells = len({r.prompt for r in found})
    print(f"{len(styles)} styles x {len(objects)} objects, {cells} cells, {len(found)} pictures asked for -> {args.out}")


if __name__ == "__main__":
    cli.exit_with(main)
