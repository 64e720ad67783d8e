"""Forget styles, objects or characters in a pipeline by one step on one layer of its text tower (paper, section 3).

Example: python src/sd/b2_unlearn_sd.py --style Van_Gogh --object Dogs --prompts data/UnlearnCanvas/prompts.csv
         python src/sd/b2_unlearn_sd.py --object iron_man mickey_mouse --select clip --prompts data/prompts.csv
         python src/sd/b2_unlearn_sd.py --style Van_Gogh --method slug_w_rounds --prompts ...   (3 layers, one in each round)
         python src/sd/b2_unlearn_sd.py --style Van_Gogh --method uce --prompts ...              (a baseline)
Needs b1_compute_grad.py and the prompts of a0_create_prompts_uncanvas.py; without --style and --object every concept of
these is forgotten. Candidates are chosen on the validation split: the classifiers, or with --select clip the unedited CLIP,
judge generated pictures. Writes under results/sd/, for each concept: a .json record, a .csv of all candidates with their
seeds, the .delta.safetensors that carries the edit, and for SLUG the Pareto plot and -lora/, the same edit as an adapter
that diffusers loads (of linear layers only). src/clip/a2_unlearn_slug.py apply puts a delta into a pipeline folder. Valid
records are kept. Records of other prompts or of another judge are not overwritten: give each run its own --result-dir.
"""

from collections.abc import Sequence

from slug import cli
from slug.settings import ForgetPipeline


def parse_args(argv: Sequence[str] | None = None) -> ForgetPipeline:
    return cli.parse(__doc__, ForgetPipeline, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.experiments import pipelines  # here: --help needs no torch

    pipelines.run(settings)


if __name__ == "__main__":
    cli.exit_with(main)
