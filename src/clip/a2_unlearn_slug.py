"""Forget names: one step on one layer each (paper, section 3), or apply and revert a delta that was found.

Example: python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --layer visual.proj --step 3.5      (repeat one edit)
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

from slug import cli, files
from slug.artifacts.settings import Adapter, Apply, List, Revert, Seal
from slug.settings import Forget


def parse_args(argv=None) -> Forget:
    return cli.parse(__doc__, Forget, argv)


def apply(argv):
    settings = cli.parse(
        "Write a model folder with deltas applied (open_clip, Hugging Face, diffusers, LLaVA).", Apply, argv
    )
    from slug.artifacts import deltas

    how = {"seal": settings.seal, "partial": settings.partial}
    out = deltas.apply(settings.delta, settings.model_dir, settings.out, say=print, **how)
    print(f"apply: {', '.join(settings.delta)} -> {out}")


def revert(argv):
    settings = cli.parse("Write an edited model folder without some of its deltas, exact to the bit.", Revert, argv)
    from slug.artifacts import deltas

    out = deltas.revert(settings.delta, settings.model_dir, settings.out, say=print)
    print(f"revert: {', '.join(settings.delta)} -> {out}")


def seal(argv):
    settings = cli.parse("Write an edited model folder with nothing from which the original can be computed.", Seal, argv)
    from slug.artifacts import deltas

    print(f"seal: {settings.model_dir} -> {deltas.seal(settings.model_dir, settings.out, say=print)}")


def list_deltas(argv):
    settings = cli.parse("List the deltas of an edited model folder.", List, argv)
    from slug.artifacts import deltas

    for name, header in deltas.of_folder(settings.model_dir).items():
        print(f"{name}: {header['layer']}, step {float(header['step']):.6g}, made for {header['model']}")


def adapter(argv):
    about = "Write a delta as a LoRA adapter that peft.PeftModel.from_pretrained takes beside a Hugging Face CLIP."
    settings = cli.parse(about, Adapter, argv)
    from slug.artifacts import adapters, deltas

    edit, header = deltas.read(settings.delta)
    factors = adapters.adapter(edit, settings.residual)
    out = files.resolve(settings.out)
    adapters.save_peft(out, factors, header["model"], (files.resolve(settings.delta).name, header))
    said = "; ".join(f"{n} rank {f.rank}, {f.residual:.1%} left out" for n, f in factors.items())
    print(f"adapter: {said} -> {out}")


COMMANDS = {"apply": apply, "revert": revert, "seal": seal, "list": list_deltas, "adapter": adapter}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        COMMANDS[argv[0]](argv[1:])
        return
    settings = parse_args(argv)
    from slug.experiments import single  # here: --help needs no torch

    single.run(settings)


if __name__ == "__main__":
    cli.exit_with(main)
