"""Zero-shot accuracy on CelebA identities: the frequent ones (frequent_celebs.txt) among all names, prompt "{name}.".

Example: python src/clip/a0_eval_celeba.py --data-root data/celeba --model ViT-B-32 --pretrained laion400m_e32
"""

from slug import cli, files, models
from slug.data import evaluation_sets
from slug.evaluation import zeroshot


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--data-root", default="data/celeba", help="folder with img_align_celeba and its lists")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    folder = cli.check_result_dir(args)
    clip = models.from_args(args, device)
    pictures = evaluation_sets.load_celeba(files.resolve(args.data_root), clip.transform, workers=args.workers)
    zeroshot.evaluate_and_report(
        clip, pictures, zeroshot.IDENTITY_TEMPLATES, args, folder / "clip" / f"{clip.tag}-celeba.json"
    )


if __name__ == "__main__":
    cli.exit_with(main)
