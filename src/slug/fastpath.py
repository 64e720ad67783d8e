"""Exact reuse: work that cannot change a result is not done. Every function here equals its plain counterpart."""

import torch
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool


def open_clip_text_features(module, tokens):
    """module.encode_text(tokens) for (N, L) ids, without the padding where the text tower is causal.

    A token after the end-of-text token cannot reach it, so texts are cut to the longest of the batch. Other kinds of text
    tower (no causal mask, no argmax pooling) take the plain way.
    """
    causal = type(module) is CLIP and module.attn_mask is not None and module.text_pool_type == "argmax"
    if not causal:
        return module.encode_text(tokens)
    n = int(tokens.argmax(dim=-1).max()) + 1
    tokens = tokens[:, :n]
    dtype = module.transformer.get_cast_dtype()
    x = module.token_embedding(tokens).to(dtype) + module.positional_embedding[:n].to(dtype)
    x = module.ln_final(module.transformer(x, attn_mask=module.attn_mask[:n, :n]))
    pooled = text_global_pool(x, tokens, module.text_pool_type)
    if module.text_projection is None:
        return pooled
    project = module.text_projection
    return project(pooled) if isinstance(project, torch.nn.Linear) else pooled @ project


def batches_by_length(lengths, batch_size):
    """Index batches over texts, sorted by length so that little is padded; lengths is (N,). Order within ties is kept."""
    order = torch.argsort(lengths, stable=True)
    return order.split(batch_size)
