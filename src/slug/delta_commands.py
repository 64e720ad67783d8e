"""What is done with deltas and edited folders, by the command `slug` and by a2_unlearn_slug.py; imports nothing slow."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slug import cli
from slug.artifacts.settings import Adapter, Apply, List, Revert, Seal
from slug.errors import SlugError

At = Callable[[str], Path]  # from a path as it is given to an absolute one


def apply(settings: Apply, at: At) -> None:
    """Write a model folder with deltas applied (open_clip, Hugging Face, diffusers, LLaVA)."""
    from slug.artifacts import deltas

    how: dict[str, Any] = {"seal": settings.seal, "partial": settings.partial, "say": print}
    out = deltas.apply([at(d) for d in settings.delta], at(settings.model_dir), at(settings.out), **how)
    print(f"apply: {', '.join(settings.delta)} -> {out}")


def revert(settings: Revert, at: At) -> None:
    """Write an edited model folder without some of its deltas, exact to the bit."""
    from slug.artifacts import deltas

    out = deltas.revert(settings.delta, at(settings.model_dir), at(settings.out), say=print)
    print(f"revert: {', '.join(settings.delta)} -> {out}")


def seal(settings: Seal, at: At) -> None:
    """Write an edited model folder with nothing from which the original can be computed."""
    from slug.artifacts import deltas

    out = deltas.seal(at(settings.model_dir), at(settings.out), say=print)
    print(f"seal: {settings.model_dir} -> {out}")


def list_deltas(settings: List, at: At) -> None:
    """List the deltas of an edited model folder."""
    from slug.artifacts import deltas

    for name, header in deltas.of_folder(at(settings.model_dir)).items():
        print(f"{name}: {header['layer']}, step {float(header['step']):.6g}, made for {header['model']}")


def adapter(settings: Adapter, at: At) -> None:
    """Write a delta as a LoRA adapter that peft.PeftModel.from_pretrained takes beside a Hugging Face CLIP."""
    from slug.artifacts import adapters, deltas

    delta, out = at(settings.delta), at(settings.out)
    edit, header = deltas.read(delta)
    if "bases" in header:
        raise SlugError(f"{delta} edits several text encoders, and an adapter is for one CLIP; apply the delta to a folder")
    factors = adapters.adapter(edit, settings.residual)
    adapters.save_peft(out, factors, header["model"], (delta.name, header))
    said = "; ".join(f"{n} rank {f.rank}, {f.residual:.1%} left out" for n, f in factors.items())
    print(f"adapter: {said} -> {out}")


COMMANDS: dict[str, tuple[Any, type]] = {
    "apply": (apply, Apply),
    "revert": (revert, Revert),
    "seal": (seal, Seal),
    "list": (list_deltas, List),
    "adapter": (adapter, Adapter),
}


def run(argv: Sequence[str], *, at: At, prog: str | None = None) -> None:
    """Run the command line of one of COMMANDS, whose name comes first."""
    function, kind = COMMANDS[argv[0]]
    function(cli.parse(function.__doc__, kind, argv[1:], prog), at)
