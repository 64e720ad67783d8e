"""Forget and retain gradients of the text tower of the CLIP that a pipeline uses (paper, section 3).

Example: python src/sd/b1_compute_grad.py --celeb-name iron_man      (SD 1.5: openai/clip-vit-large-patch14)
         python src/sd/b1_compute_grad.py --celeb-name iron_man --clip-model-id laion/CLIP-ViT-H-14-laion2B-s32B-b79K
                                                                     (SD 2.1)
Needs b0_generate_forget_set.py or a0_create_tar_ucanvas.py. Writes what src/clip/a1_compute_grad.py writes, for the
parameters of the text tower only: a pipeline has no others. Valid files are kept.
With several processes: torchrun --nproc-per-node N src/sd/b1_compute_grad.py ...
"""

from slug import cli
from slug.settings import Model, TextGradients


def parse_args(argv=None) -> TextGradients:
    return cli.parse(__doc__, TextGradients, argv)


def main(argv=None):
    settings = parse_args(argv)
    from slug.experiments import gradients  # here: --help needs no torch

    model = Model(clip_model_id=settings.clip_model_id, batch_size=settings.batch_size)
    gradients.run(settings, model, encoder="language")


if __name__ == "__main__":
    cli.exit_with(main)
