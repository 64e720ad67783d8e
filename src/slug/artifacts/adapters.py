"""Edits of linear layers as LoRA adapters, which libraries load beside a model and remove again."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from slug import files
from slug.artifacts import cards
from slug.artifacts.cards import Header
from slug.errors import SlugError

FILE = "pytorch_lora_weights.safetensors"  # name of the weight file in diffusers
LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "visual_projection", "text_projection")
LINEAR = tuple(f"{n}.weight" for n in LAYERS)


class Factor(NamedTuple):
    """A change as up @ down, up to a residual."""

    down: Tensor  # (rank, in)
    up: Tensor  # (out, rank)
    residual: float  # norm of what is left out / norm of the change

    @property
    def rank(self) -> int:
        return len(self.down)


def factor(change: Tensor, residual: float) -> Factor:
    """The Factor of lowest rank whose residual is at most `residual`, by singular values of the change (out, in)."""
    u, s, v = torch.linalg.svd(change.double(), full_matrices=False)
    left = torch.sqrt(s.square().flip(0).cumsum(0).flip(0)) / s.norm()  # residual that keeping the first i ranks leaves
    enough = torch.nonzero(left <= residual)
    rank = max(int(enough[0]) if len(enough) else len(s), 1)
    root = s[:rank].sqrt()
    rest = left[rank].item() if rank < len(s) else 0.0
    return Factor((root[:, None] * v[:rank]).float(), (u[:, :rank] * root).float(), rest)


def fits(edit: Mapping[str, Tensor]) -> bool:
    """Whether an edit, {Hugging Face CLIP's parameter name: change}, touches linear layers only."""
    return bool(edit) and all(n.endswith(LINEAR) and change.ndim == 2 for n, change in edit.items())


def adapter(edit: Mapping[str, Tensor], residual: float = 0.02) -> dict[str, Factor]:
    """{module: Factor} of an edit; see `factor`. SlugError unless the edit `fits`."""
    if not fits(edit):
        raise SlugError(
            f"{', '.join(edit) or 'nothing'}: an adapter can hold edits of linear layers only; apply the delta instead"
        )
    return {n.removesuffix(".weight"): factor(change, residual) for n, change in edit.items()}


def _state(factors: Mapping[str, Factor], key: str, down: str, up: str) -> dict[str, Tensor]:
    """The weights of an adapter under a library's names; `key` is the format of a module's name."""
    state: dict[str, Tensor] = {}
    for module, f in factors.items():
        name = key.format(module)
        state |= {f"{name}.{down}.weight": f.down.contiguous(), f"{name}.{up}.weight": f.up.contiguous()}
    return state


def save(folder: Path, factors: Mapping[str, Factor], base: str, delta: tuple[str, Header], license: str = "other") -> Path:
    """Write an adapter for StableDiffusionPipeline.load_lora_weights, with a card. Returns its weight file.

    Its scale is 1, because without an alpha diffusers takes the rank for it. `base` is the name of the pipeline, `delta` the
    (file name, header) of the delta that the adapter was made from, `license` that of the pipeline.
    """
    import slug.torchvision_cpu  # noqa: F401  (before diffusers)

    from diffusers import StableDiffusionPipeline

    # Of peft's names diffusers knows those of attention only; its own names work for all layers.
    state = _state(factors, "{}.lora_linear_layer", "down", "up")
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(folder, text_encoder_lora_layers=state, safe_serialization=True)
    files.write_text(folder / cards.FILE, cards.adapter_text("diffusers", base, *delta, factors, license))
    return folder / FILE


def save_peft(folder: Path, factors: Mapping[str, Factor], base: str, delta: tuple[str, Header]) -> None:
    """As `save`, for peft.PeftModel.from_pretrained beside the Hugging Face CLIP `base`.

    Raises SlugError if the folder holds something else than an adapter, which would be replaced.
    """
    import slug.torchvision_cpu  # noqa: F401  (before peft, which imports transformers)

    from peft import LoraConfig
    from safetensors.torch import save_file

    is_other = not folder.is_dir() or (any(folder.iterdir()) and not (folder / "adapter_config.json").is_file())
    if folder.exists() and is_other:
        raise SlugError(f"{folder} exists and holds no adapter; choose another --out")
    ranks = {module: f.rank for module, f in factors.items()}
    config = LoraConfig(
        base_model_name_or_path=base,
        target_modules=list(factors),
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,  # alpha = rank: the adapter's scale is 1
        inference_mode=True,
    )
    with files.replacing_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        state = _state(factors, "base_model.model.{}", "lora_A", "lora_B")
        save_file(state, temporary / "adapter_model.safetensors")
        files.write_text(temporary / cards.FILE, cards.adapter_text("peft", base, *delta, factors))
