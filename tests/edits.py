"""Deltas of tiny CLIPs, for tests of what is made from them."""

import tiny

from slug.artifacts import deltas
from slug.core import gradients, layers, losses
from slug.core.edit import Edit

LAYERS = {  # fused, transposed and plain; and their partners
    "open_clip": (
        "visual.transformer.resblocks.1.attn.in_proj_weight",
        "text_projection",
        "transformer.resblocks.0.mlp.c_fc.weight",
    ),
    "hugging_face": (
        "vision_model.encoder.layers.1.self_attn.k_proj.weight",
        "text_projection.weight",
        "text_model.encoder.layers.0.mlp.fc1.weight",
    ),
}


def make(folder, path, family="open_clip", layer=0, relative=0.5):
    """Write the delta of a step on one layer, as large a part of its weights as `relative`; returns the edit."""
    clip = tiny.load(folder, family)
    grads, _ = gradients.compute(clip, tiny.pairs(4), losses.cosine_embedding)
    layer = LAYERS[family][layer]
    group = clip.group(layer)
    step = 10 * relative * layers.first_step([clip.parameters[n] for n in group], [grads[n] for n in group])
    edit = dict(Edit.along(clip, layer, grads, step).changes)
    figures = {"forget_acc1": 0.025, "n_forget": 40, "split": "test"}
    deltas.save(path, clip, edit, name="a frog", layer=layer, step=step, metrics=figures)
    return edit


def contents(folder):
    """{relative path: bytes} of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
