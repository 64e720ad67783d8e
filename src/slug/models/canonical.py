"""Canonical parameter names: those of the Hugging Face CLIPModel.

An open_clip ViT fuses q, k and v and stores its projections transposed; this module presents its tensors as views with
canonical names and layouts. Models of other families keep their own names.
"""

import re
from collections.abc import Mapping

from torch import Tensor

ALONE = " alone"  # suffix of a layer's name: the layer moves without the other members of its group
# Prefixes of the parameters of each tower of a Hugging Face CLIP; a tower by itself may omit its prefix.
TEXT, VISION = "text_model.", "vision_model."
UNET = "unet."  # of the UNet's parameters in an edit of a pipeline
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_WHOLE = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}


def hf_views(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A parameter of an open_clip ViT as {Hugging Face CLIP name: view of it in Hugging Face layout}.

    Writing into a view writes into `tensor`. Raises KeyError for a name that an open_clip ViT does not have.
    """
    if name in _WHOLE:
        return {_WHOLE[name]: tensor}
    if name in _TRANSPOSED:
        return {_TRANSPOSED[name]: tensor.T}
    found = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)", name)
    if not found:
        raise KeyError(name)
    prefix = f"{VISION if found[1] else TEXT}encoder.layers.{found[2]}."
    if found[3] == "attn.in_proj":  # rows of the fused projection: q, then k, then v
        return {f"{prefix}self_attn.{p}_proj.{found[4]}": part for p, part in zip("qkv", tensor.chunk(3), strict=True)}
    return {f"{prefix}{_BLOCK[found[3]]}.{found[4]}": tensor}


def views(family: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The canonical views of a parameter; KeyError if it has none in a family where only some parameters have them."""
    if family == "open_clip_vit":
        return hf_views(name, tensor)
    if family == "diffusers":  # a text encoder by itself, with or without its projection
        return {name if name.startswith("text_projection.") else TEXT + name.removeprefix(TEXT): tensor}
    if family == "llava":  # only the vision tower has canonical names
        tower = re.fullmatch(r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)", name)
        if not tower:
            raise KeyError(name)
        return {VISION + tower[1]: tensor}
    return {name: tensor}


def all_views(family: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The canonical views of a whole state dict: {canonical name: view}."""
    return {c: v for name, t in tensors.items() for c, v in views(family, name, t).items()}
