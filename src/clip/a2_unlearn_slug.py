"""Forget names: one step on one layer each (paper, section 3), or apply and revert a delta that was found.

Example: python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --layer visual.proj --step 3.5      (repeat one edit)
         python src/clip/a2_unlearn_slug.py --name Zoe --images data/mine/Zoe  (own pictures; no a1, no evaluation sets)
         python src/clip/a2_unlearn_slug.py apply  --delta results/clip/X.delta.safetensors [more] --model-dir M --out E
         python src/clip/a2_unlearn_slug.py revert --delta X.delta.safetensors [more] --model-dir E --out M
         python src/clip/a2_unlearn_slug.py list --model-dir E
         python src/clip/a2_unlearn_slug.py adapter --delta X.delta.safetensors --out A              (LoRA, for peft)
Needs a1_compute_grad.py. Searches every layer of both Pareto fronts on the validation split and reports the winner on the
test split. Writes under results/clip/: Pareto, step-size and cosine plots, a step log for each layer, and for each name a
.json record, a .csv of all steps and the .delta.safetensors that carries the edit. Valid records are kept.
On several devices: torchrun --nproc-per-node=N src/clip/a2_unlearn_slug.py ...
"""

import sys
from dataclasses import dataclass

from slug import cli, commands, files
from slug.cli import flag
from slug.commands import ForgetStage


@dataclass(frozen=True)
class Folder:
    """list."""

    model_dir: str = flag(help="model folder to start from")


@dataclass(frozen=True)
class FolderWithDeltas(Folder):
    """apply and revert."""

    delta: tuple[str, ...] = flag(help=".delta.safetensors files; to revert, their names are enough")
    out: str = flag(help="model folder to write; may be the same")


@dataclass(frozen=True)
class Adapter:
    """adapter."""

    delta: str = flag(help="a .delta.safetensors file that edits linear layers")
    out: str = flag(help="folder to write")
    residual: float = flag(0.02, "fraction of the edit that the adapter may leave out")


def parse_args(argv=None) -> ForgetStage:
    return cli.parse(__doc__, ForgetStage, argv)


def write_adapter(argv):
    about = "Write a delta as a LoRA adapter that peft.PeftModel.from_pretrained takes beside a Hugging Face CLIP."
    settings = cli.parse(about, Adapter, argv)
    from slug.artifacts import adapters, deltas

    edit, header = deltas.read(settings.delta)
    factors = adapters.adapter(edit, settings.residual)
    out = files.resolve(settings.out)
    adapters.save_peft(out, factors, header["model"], (files.resolve(settings.delta).name, header))
    said = "; ".join(f"{n} rank {f.rank}, {f.residual:.1%} left out" for n, f in factors.items())
    print(f"adapter: {said} -> {out}")


def edit_folder(command, argv):
    about = f"{command} deltas of a model folder (open_clip, Hugging Face, diffusers, LLaVA)."
    from slug.artifacts import deltas

    if command == "list":
        for name, header in deltas.of_folder(cli.parse(about, Folder, argv).model_dir).items():
            print(f"{name}: {header['layer']}, step {float(header['step']):.6g}, made for {header['model']}")
        return
    settings = cli.parse(about, FolderWithDeltas, argv)
    out = getattr(deltas, command)(settings.delta, settings.model_dir, settings.out)
    print(f"{command}: {', '.join(settings.delta)} -> {out}")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("apply", "revert", "list"):
        edit_folder(argv[0], argv[1:])
    elif argv and argv[0] == "adapter":
        write_adapter(argv[1:])
    else:
        settings = parse_args(argv)
        if settings.images:
            commands.of_stage(settings)
            return
        from slug.experiments import single  # here: --help needs no torch

        single.run(settings)


if __name__ == "__main__":
    cli.exit_with(main)
