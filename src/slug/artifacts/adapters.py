"""An edit of linear layers as a LoRA adapter, which libraries load beside a model and switch off again."""

from typing import NamedTuple

import torch

from slug import files
from slug.artifacts import cards
from slug.errors import SlugError

FILE = "pytorch_lora_weights.safetensors"  # as diffusers calls it


class Factor(NamedTuple):
    """change = up @ down, but for the residual."""

    down: torch.Tensor  # (rank, in)
    up: torch.Tensor  # (out, rank)
    residual: float  # norm of what is left over / norm of the change

    @property
    def rank(self):
        """Inner size."""
        return len(self.down)


def factor(change, residual):
    """The Factor of lowest rank whose residual is at most `residual`, by singular values.

    Args:
        change: (out, in) matrix.
    """
    u, s, v = torch.linalg.svd(change.double(), full_matrices=False)
    left = torch.sqrt(s.square().flip(0).cumsum(0).flip(0)) / s.norm()  # left over where the ranks before i are kept
    enough = torch.nonzero(left <= residual)
    rank = max(int(enough[0]) if len(enough) else len(s), 1)
    root = s[:rank].sqrt()
    rest = left[rank].item() if rank < len(s) else 0.0
    return Factor((root[:, None] * v[:rank]).float(), (u[:, :rank] * root).float(), rest)


LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "visual_projection", "text_projection")
LINEAR = tuple(f"{n}.weight" for n in LAYERS)


def fits(edit):
    """Whether all that an edit, {Hugging Face CLIP's parameter name: change}, touches is linear layers."""
    return bool(edit) and all(n.endswith(LINEAR) and change.ndim == 2 for n, change in edit.items())


def adapter(edit, residual=0.02):
    """{module: Factor} of an edit of linear layers.

    Args:
        edit: see `fits`.
        residual: see `factor`.
    Raises:
        SlugError: something else than a linear layer's weight is edited.
    """
    if not fits(edit):
        raise SlugError(f"{', '.join(edit) or 'nothing'}: LoRA carries linear layers only; use the delta")
    return {n.removesuffix(".weight"): factor(change, residual) for n, change in edit.items()}


def save(folder, factors, base, delta):
    """Write `adapter`'s factors, and a card, to a folder that StableDiffusionPipeline.load_lora_weights takes; returns the
    file of the weights.

    The alpha of each module is its rank, so that the adapter is added as it is.

    Args:
        base: name of the pipeline that the adapter belongs to.
        delta: (file name, header) of the delta that it was made of.
    """
    import slug.torchvision_cpu  # noqa: F401  (before diffusers)

    from diffusers import StableDiffusionPipeline

    state = {}
    for module, f in factors.items():
        # diffusers knows peft's names of attention alone, and its own of every layer.
        key = f"{module}.lora_linear_layer"
        state |= {f"{key}.down.weight": f.down.contiguous(), f"{key}.up.weight": f.up.contiguous()}
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(folder, text_encoder_lora_layers=state, safe_serialization=True)
    files.write_text(folder / cards.FILE, cards.adapter_text("diffusers", base, *delta, factors))
    return folder / FILE


def save_peft(folder, factors, base, delta):
    """Write `adapter`'s factors, and a card, to a folder that peft.PeftModel.from_pretrained takes beside a CLIP of Hugging
    Face.

    Args:
        base: name of the CLIP that the adapter belongs to.
        delta: as of `save`.
    Raises:
        SlugError: the folder holds anything but an adapter, which is replaced.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    if folder.exists() and any(folder.iterdir()) and not (folder / "adapter_config.json").is_file():
        raise SlugError(f"{folder} exists and holds no adapter; choose another --out")

    ranks = {module: f.rank for module, f in factors.items()}
    config = LoraConfig(
        base_model_name_or_path=base,
        target_modules=list(factors),
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,  # as in `save`
        inference_mode=True,
    )
    state = {}
    for module, f in factors.items():
        key = f"base_model.model.{module}"
        state |= {f"{key}.lora_A.weight": f.down.contiguous(), f"{key}.lora_B.weight": f.up.contiguous()}
    with files.replacing_folder(folder) as temporary:
        config.save_pretrained(temporary)
        save_file(state, temporary / "adapter_model.safetensors")
        files.write_text(temporary / cards.FILE, cards.adapter_text("peft", base, *delta, factors))
