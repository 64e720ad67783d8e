"""Make a LLaVA forget names by one step on one layer of its vision tower each (paper, section 3).

Example: python src/vlm/c1_unlearn_vlm.py --celeb-name Elon_Musk --questions data/vlm/questions.jsonl
         python src/vlm/c1_unlearn_vlm.py --vlm data/demo/models/mini-llava --clip-model-id data/demo/models/mini-clip-hf ...
Computes the forget and retain gradients of the vision tower's CLIP, unless results/grads/ has valid ones. Then searches the
layers of the Pareto front for the step that forgets the name by its answers to the validation split's questions, and that
retains most of everything else. Writes under results/vlm/, for each name: a .json record, a .csv of all candidates, the
.delta.safetensors and the Pareto plot. src/clip/a2_unlearn_slug.py apply puts a delta into the model's folder, or into its
CLIP's. Valid records are kept.
"""

from slug import cli
from slug.settings import ForgetAssistant


def parse_args(argv=None) -> ForgetAssistant:
    return cli.parse(__doc__, ForgetAssistant, argv)


def main(argv=None):
    settings = parse_args(argv)
    from slug.experiments import assistants  # here: --help needs no torch

    assistants.forget(settings)


if __name__ == "__main__":
    cli.exit_with(main)
