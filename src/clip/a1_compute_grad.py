"""Forget and retain gradients, one pass each at the original weights (paper, section 3).

Example: python src/clip/a1_compute_grad.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a1_compute_grad.py --celeb-name Elon_Musk --unlearn-method slug_w ssd    (what these methods read)
         python src/clip/a1_compute_grad.py --celeb-name Elon_Musk --checkpoints 10 50 100   (are fewer pictures enough?)
Needs a0_create_tar.py. Writes results/grads/{name}_{tag}/forget_grads.pt and train_grads.pt. The latter is the gradient of
the retain set, results/grads/retain_{tag}/, with the batches that hold pairs of the name computed again without these. By
--protocol paper it is a link to one gradient that leaves out the pairs of all names of the call.
Valid files are kept. --published takes the files of the published code, whose forget gradient is negated, instead of
computing them. --checkpoints also writes {forget,train}_grads_samples_N.pt, and beside them samples.csv, their cosines with
the gradients of all pairs, and samples-fronts.csv, their Pareto fronts; a4_report.py --samples reports on these.
With several processes: torchrun --nproc-per-node N src/clip/a1_compute_grad.py ...
"""

from slug import cli
from slug.settings import Gradients


def parse_args(argv=None) -> Gradients:
    return cli.parse(__doc__, Gradients, argv)


def main(argv=None):
    settings = parse_args(argv)
    from slug.experiments import gradients  # here: --help needs no torch

    if settings.published:
        gradients.adopt(settings, settings.model, settings.published)
    else:
        gradients.run(settings, settings.model, checkpoints=settings.checkpoints)


if __name__ == "__main__":
    cli.exit_with(main)
