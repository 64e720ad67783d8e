"""Settings of the subcommands that edit model folders and write adapters; this module imports nothing slow."""

from dataclasses import dataclass

from slug.cli import Fraction, flag


@dataclass(frozen=True)
class List:
    """a2_unlearn_slug.py list."""

    model_dir: str = flag(help="folder of the model (of open_clip, transformers or diffusers)")


@dataclass(frozen=True)
class Seal(List):
    """a2_unlearn_slug.py seal."""

    out: str = flag(help="folder to write; may be the same folder")


@dataclass(frozen=True)
class Revert(Seal):
    """a2_unlearn_slug.py revert."""

    delta: tuple[str, ...] = flag(help="delta files (.delta.safetensors); to revert, their names are enough")


@dataclass(frozen=True)
class Apply(Revert):
    """a2_unlearn_slug.py apply."""

    seal: bool = flag(False, "keep neither the original tensors nor the deltas in the folder, so that it can be given away")
    partial: bool = flag(False, "allow that some text encoders of the pipeline are not edited and still know the name")


@dataclass(frozen=True)
class Adapter:
    """a2_unlearn_slug.py adapter."""

    delta: str = flag(help="a .delta.safetensors file that edits linear layers")
    out: str = flag(help="folder to write")
    residual: Fraction = flag(0.02, "fraction of the edit that the adapter may leave out")
