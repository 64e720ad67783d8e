"""Forget and retain gradients, one pass each at the original weights (paper, section 3).

Example: python src/clip/a1_compute_grad.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
Needs a0_create_tar.py. Writes results/grads/{name}_{tag}/forget_grads.pt and train_grads.pt, which is linked from
results/grads/retain_{tag}/: one retain gradient serves all names, and leaves out the pairs that say any of them.
Valid files are kept. Several processes: torchrun --nproc-per-node N src/clip/a1_compute_grad.py ...
"""

from slug import cli, distributed, models
from slug.artifacts import gradient_files


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    gradient_files.add_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    distributed.start(device)
    cli.check_result_dir(args)
    gradient_files.write_all(args, models.from_args(args, device))


if __name__ == "__main__":
    cli.exit_with(main)
