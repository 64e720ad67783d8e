"""Zero-shot accuracy on an ImageNet-style validation folder, seven simple templates.

Example: python src/clip/a0_eval_imagenet.py --imagenet-val data/ImageNet/val --model ViT-B-32 --pretrained laion400m_e32
"""

from slug import cli, files, models
from slug.data import evaluation_sets
from slug.evaluation import zeroshot


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--imagenet-val", default="data/ImageNet/val", help="folder with one subfolder a class")
    parser.add_argument("--imagenet-share", type=float, default=1.0, help="part of the pictures, drawn by --seed")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    folder = cli.check_result_dir(args)
    clip = models.from_args(args, device)
    pictures = evaluation_sets.load_imagenet(
        files.resolve(args.imagenet_val),
        clip.transform,
        workers=args.workers,
        share=args.imagenet_share,
        seed=args.seed,
    )
    zeroshot.evaluate_and_report(
        clip, pictures, zeroshot.object_templates(), args, folder / "clip" / f"{clip.tag}-imagenet.json"
    )


if __name__ == "__main__":
    cli.exit_with(main)
