"""One canonical set of parameter names: those of the Hugging Face CLIPModel.

open_clip ViTs fuse q, k and v and store projections transposed; here a tensor of theirs is seen as views with canonical
names and layouts. A model of another family keeps its own names.
"""

import re

ALONE = " alone"  # behind a layer's name: moved without the others of its group
# Before a Hugging Face CLIP's names of a tower's parameters; a lone tower may leave it out.
TEXT, VISION = "text_model.", "vision_model."
_BLOCK = {
    "ln_1.weight": "layer_norm1.weight",
    "ln_1.bias": "layer_norm1.bias",
    "ln_2.weight": "layer_norm2.weight",
    "ln_2.bias": "layer_norm2.bias",
    "attn.out_proj.weight": "self_attn.out_proj.weight",
    "attn.out_proj.bias": "self_attn.out_proj.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
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


def hf_views(name, tensor):
    """An open_clip ViT parameter as {Hugging Face CLIP name: view of it in Hugging Face layout}.

    Writing into a view writes into `tensor`. Raises KeyError for a name that an open_clip ViT CLIP does not have.
    """
    if name in _WHOLE:
        return {_WHOLE[name]: tensor}
    if name in _TRANSPOSED:
        return {_TRANSPOSED[name]: tensor.T}
    found = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name)
    if not found:
        raise KeyError(name)
    tower = "vision_model" if found[1] else "text_model"
    prefix = f"{tower}.encoder.layers.{found[2]}."
    kind = re.fullmatch(r"attn\.in_proj_(weight|bias)", found[3])
    if kind:  # rows of the fused projection: q, then k, then v
        parts = tensor.chunk(3)
        return {f"{prefix}self_attn.{p}_proj.{kind[1]}": part for p, part in zip("qkv", parts, strict=True)}
    return {prefix + _BLOCK[found[3]]: tensor}


def views(family, name, tensor):
    """The canonical views of a parameter: `hf_views` for an open_clip ViT, itself under its own name otherwise."""
    if family == "open_clip_vit":
        return hf_views(name, tensor)
    if family == "diffusers":  # a text encoder by itself
        return {TEXT + name.removeprefix(TEXT): tensor}
    if family == "llava":  # of which only the vision tower has canonical names
        tower = re.fullmatch(r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)", name)
        if not tower:
            raise KeyError(name)
        return {VISION + tower[1]: tensor}
    return {name: tensor}


def all_views(family, tensors):
    """The canonical views of a whole state dict: {canonical name: view}."""
    return {c: v for name, t in tensors.items() for c, v in views(family, name, t).items()}
