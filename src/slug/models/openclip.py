"""CLIPs of the open_clip library."""

import functools
import re
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import Tensor

from slug.models.clip import Clip
from slug.models.prefixes import Prefixes
from slug.models.towers import Stage


class OpenClip(Clip):
    """A CLIP of the open_clip library."""

    vision_prefixes = ("visual.",)

    def __init__(self, *parts: Any, **names: Any):
        super().__init__(*parts, **names)
        try:
            self.family = "open_clip_vit"
            self.canonical_views(self.parameters)
        except KeyError:  # a ResNet, a timm tower, a Hugging Face text tower: they keep their own names
            self.family = "open_clip"

    @property
    def _towers(self) -> dict[str, tuple[Any, str, tuple[str, ...]]]:
        """{encoder: (transformer, prefix of its parameters, prefixes of the head's parameters)} of plain transformers."""
        module, found = self.module, {}
        visual = module.visual
        if type(visual) is VisionTransformer and visual.attn_pool is None and visual.pool_type == "tok":
            found["vision"] = visual.transformer, "visual.transformer.", ("visual.proj", "visual.ln_post.")
        if (text := self._causal_text) is not None:
            prefix = "" if text is module else "text."
            found["language"] = text.transformer, f"{prefix}transformer.", (f"{prefix}text_projection", f"{prefix}ln_final.")
        plain = {e: t for e, t in found.items() if all(type(b) is ResidualAttentionBlock for b in t[0].resblocks)}
        return {e: t for e, t in plain.items() if t[0].batch_first and len(t[0].resblocks)}

    @property
    def _causal_text(self) -> Any:
        """The module of a causal text tower that pools its end token: the model or a part of it; None for other towers."""
        module = self.module
        if type(module) is CLIP:
            return module if module.attn_mask is not None and module.text_pool_type == "argmax" else None
        text: Any = getattr(module, "text", None)
        if type(text) is not TextTransformer or text.attn_mask is None or text.cls_emb is not None:
            return None
        return text if text.pool_type == "argmax" else None

    def stages(self, encoder: str) -> list[Stage]:
        """As Clip.stages. A transformer of open_clip is embedding, blocks and head, and its last block computes only the
        pooled token; a ResNet has its own stages."""
        visual = self.module.visual
        if encoder == "vision" and type(visual) is ModifiedResNet:
            blocks = [visual.layer1, visual.layer2, visual.layer3, visual.layer4, visual.attnpool]
            rest = [lambda x, _, block=block: block(x) for block in blocks]
            return [lambda x, _: visual.stem(self.normalise(x)), *rest]
        if encoder not in self._towers:
            return super().stages(encoder)
        return self._vision_stages() if encoder == "vision" else self._text_stages()

    def _vision_stages(self) -> list[Stage]:
        visual = self.module.visual
        *blocks, last = visual.transformer.resblocks
        return [
            lambda x, _: visual._embeds(self.normalise(x)),
            *(lambda x, _, block=block: _block(block, x) for block in blocks),
            lambda x, _: _pooled_block(last, x, x[:, :1]),
            lambda x, _: _project(visual.ln_post(x), visual.proj),
        ]

    def _text_stages(self) -> list[Stage]:
        text = self._causal_text
        *blocks, last = text.transformer.resblocks
        mask = text.attn_mask

        def embed(x: Tensor, _: Tensor) -> Tensor:
            dtype = text.transformer.get_cast_dtype()
            return text.token_embedding(x).to(dtype) + text.positional_embedding[: x.shape[1]].to(dtype)

        def pooled(x: Tensor, tokens: Tensor) -> Tensor:
            end = tokens.argmax(dim=-1)  # the end token has the largest id
            after = torch.arange(x.shape[1], device=x.device) > end[:, None]
            return _pooled_block(last, x, x[torch.arange(len(x), device=x.device), end][:, None], after)

        return [
            embed,
            *(lambda x, _, block=block: _block(block, x, mask[: x.shape[1], : x.shape[1]]) for block in blocks),
            pooled,
            lambda x, _: _project(text.ln_final(x), text.text_projection),
        ]

    def prefix_stages(self) -> list[Stage] | None:
        """As Clip.prefix_stages, for plain transformers."""
        if "language" not in self._towers:
            return None
        text = self._causal_text
        *blocks, last = text.transformer.resblocks
        dtype = text.transformer.get_cast_dtype()

        def embed(texts: Prefixes, _: Any) -> Tensor:
            return text.token_embedding(texts.words).to(dtype) + text.positional_embedding[texts.depths].to(dtype)

        def pooled(x: Tensor, texts: Prefixes) -> Tensor:
            width, ends = x.shape[-1], texts.ends(x)
            query = _inputs(last.attn, last.ln_1(ends), 0, width)
            key, value = _inputs(last.attn, last.ln_1(x), width, None).chunk(2, -1)
            return _after_attention(last, ends, texts.attend_ends(query, key, value, last.attn.num_heads))

        def block(x: Tensor, texts: Prefixes, block: Any) -> Tensor:
            query, key, value = _inputs(block.attn, block.ln_1(x), 0, None).chunk(3, -1)
            return _after_attention(block, x, texts.attend(query, key, value, block.attn.num_heads))

        return [
            embed,
            *(functools.partial(block, block=b) for b in blocks),
            pooled,
            lambda x, _: _project(text.ln_final(x), text.text_projection),
        ]

    def stage(self, name: str) -> int:
        layer = re.match(r"visual\.(layer\d|attnpool)\.", name)
        if layer and type(self.module.visual) is ModifiedResNet:
            return 5 if layer[1] == "attnpool" else int(layer[1][-1])
        encoder = self.tower(name)
        if encoder not in self._towers:
            return 0
        transformer, prefix, head = self._towers[encoder]
        block = re.match(re.escape(prefix) + r"resblocks\.(\d+)\.", name)
        if block:
            return 1 + int(block[1])
        return 1 + len(transformer.resblocks) if name.startswith(head) else 0

    def text_lengths(self, tokens: Tensor) -> Tensor:
        return tokens.argmax(dim=-1) + 1 if "language" in self._towers else super().text_lengths(tokens)

    def checkpoint_tower(self, encoder: str) -> None:
        tower = self.module.visual if encoder == "vision" else getattr(self.module, "text", self.module)
        tower.set_grad_checkpointing(True)

    def tokenize(self, texts: list[str]) -> Tensor:
        return self.tokenizer(texts)

    def whole_image(self, x: Tensor) -> Tensor:
        return self.module.encode_image(x)

    def whole_text(self, tokens: Tensor) -> Tensor:
        return self.module.encode_text(tokens)


def _inputs(attention: Any, x: Tensor, begin: int, end: int | None) -> Tensor:
    """The queries, keys and values (.., 3 W) of an nn.MultiheadAttention for x (.., W), from `begin` to `end` of them."""
    bias = attention.in_proj_bias
    return F.linear(x, attention.in_proj_weight[begin:end], None if bias is None else bias[begin:end])


def _attend(attention: Any, query: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """What an nn.MultiheadAttention without dropout sees, (N, Q, W), before its output projection, for queries (N, Q, W) and
    keys (N, L, W), maybe the same.

    The library's own implementation transposes the batch, and its matrix products run at half the speed.
    """
    width = query.shape[-1]
    if query is keys:
        parts = _inputs(attention, keys, 0, None).chunk(3, -1)
    else:
        parts = _inputs(attention, query, 0, width), *_inputs(attention, keys, width, None).chunk(2, -1)
    q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def _after_attention(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """Output (.., W) of a transformer block for x (.., W), of which its attention sees `seen` (.., W)."""
    x = x + block.ls_1(block.attn.out_proj(seen))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _block(block: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Output (N, L, W) of a transformer block."""
    normed = block.ln_1(x)
    return _after_attention(block, x, _attend(block.attn, normed, normed, mask))


def _pooled_block(block: Any, x: Tensor, query: Tensor, after: Tensor | None = None) -> Tensor:
    """Output (N, W) of a transformer block with the input x (N, L, W) for its pooled tokens, query (N, 1, W), alone.

    A causal block hides the tokens `after` (N, L), bool, from the query.
    """
    hidden = None if after is None or not after.any() else after
    seen = _attend(block.attn, block.ln_1(query), block.ln_1(x), None if hidden is None else ~hidden[:, None, None])
    return _after_attention(block, query, seen)[:, 0]


def _project(x: Tensor, projection: Any) -> Tensor:
    """Pooled features (N, W) through a tower's projection: a matrix, a linear layer, or none."""
    if projection is None:
        return x
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
