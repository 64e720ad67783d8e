"""Forget and retain gradients of the text tower of the CLIP that a pipeline uses (paper, section 3).

Example: python src/sd/b1_compute_grad.py --celeb-name iron_man                     (SD 1.5: openai/clip-vit-large-patch14)
         python src/sd/b1_compute_grad.py --celeb-name iron_man --clip-model-id laion/CLIP-ViT-H-14-laion2B-s32B-b79K   (SD
         2.1)
Needs b0_generate_forget_set.py or a0_create_tar_ucanvas.py. Writes what src/clip/a1_compute_grad.py writes, for the
parameters of the text tower alone: only these can be put into a pipeline.
"""

from slug import cli, distributed, models
from slug.artifacts import gradient_files


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--clip-model-id", default="openai/clip-vit-large-patch14", help="Hugging Face CLIP id or folder")
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a batch of the gradient pass")
    gradient_files.add_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    distributed.start(device)
    cli.check_result_dir(args)
    gradient_files.write_all(args, models.load(clip_model_id=args.clip_model_id, device=device), encoder="language")


if __name__ == "__main__":
    cli.exit_with(main)
