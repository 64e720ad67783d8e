"""Forget names: one step on one layer each (paper, section 3), or apply and revert a delta that was found.

Example: python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --layer visual.proj --step 3.5      (repeat one edit)
         python src/clip/a2_unlearn_slug.py --name Zoe --images data/mine/Zoe  (own pictures; no a1, no evaluation sets)
         python src/clip/a2_unlearn_slug.py apply  --delta results/clip/X.delta.safetensors [more] --model-dir M --out E
         python src/clip/a2_unlearn_slug.py revert --delta X.delta.safetensors [more] --model-dir E --out M
         python src/clip/a2_unlearn_slug.py seal --model-dir E --out S            (nothing left to revert with: to give away)
         python src/clip/a2_unlearn_slug.py list --model-dir E
         python src/clip/a2_unlearn_slug.py adapter --delta X.delta.safetensors --out A              (LoRA, for peft)
Needs a1_compute_grad.py. Searches every layer of both Pareto fronts on the validation split and reports the winner on the
test split. Writes under results/clip/: Pareto, step-size and cosine plots, a step log for each layer, and for each name a
.json record, a .csv of all steps and the .delta.safetensors that carries the edit. Valid records are kept.
On several devices: torchrun --nproc-per-node=N src/clip/a2_unlearn_slug.py ...
"""

import sys

from slug import cli, commands, delta_commands, files


def parse_args(argv=None) -> commands.ForgetStage:
    return cli.parse(__doc__, commands.ForgetStage, argv)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in delta_commands.COMMANDS:
        delta_commands.run(argv, at=files.resolve)
        return
    settings = parse_args(argv)
    if settings.images:
        commands.of_stage(settings)
        return
    from slug.experiments import single  # here: --help needs no torch

    single.run(settings)


if __name__ == "__main__":
    cli.exit_with(main)
