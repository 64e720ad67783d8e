"""CLIPs of the transformers library."""

import functools
import re
from typing import Any

import torch
from torch import Tensor

from slug.models.canonical import ALONE
from slug.models.clip import Clip
from slug.models.prefixes import Prefixes
from slug.models.towers import Stage

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("fc1", "fc2"))  # separate tensors that move together


class HuggingFaceClip(Clip):
    """A CLIPModel of the transformers library."""

    family = "hf"
    vision_prefixes = ("vision_model.", "visual_projection.")

    def encoder(self, name: str) -> str | None:
        """As Clip.encoder, without the norms, which the published Hugging Face runs leave out."""
        return None if "norm" in name or "layrnorm" in name else super().encoder(name)

    def group(self, name: str) -> tuple[str, ...]:
        """As Clip.group: q, k and v move together, and so do fc1 and fc2."""
        for members in TOGETHER:
            part = next((m for m in members if f".{m}." in name), None)
            if part and not name.endswith(ALONE):
                return tuple(name.replace(f".{part}.", f".{m}.") for m in members)
        return super().group(name)

    def tokenize(self, texts: list[str]) -> Tensor:
        """As Clip.tokenize; texts are padded to the longest."""
        limit = self.module.config.text_config.max_position_embeddings
        return self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt").input_ids

    def stages(self, encoder: str) -> list[Stage]:
        """As Clip.stages: embedding, layers, head; the last layer passes on only the pooled token."""
        module = self.module
        tower = module.vision_model if encoder == "vision" else module.text_model
        *layers, last = tower.encoder.layers
        if encoder == "vision":
            return [
                lambda x, _: tower.pre_layrnorm(tower.embeddings(self.normalise(x))),
                *(lambda x, _, layer=layer: layer(x, None) for layer in layers),
                lambda x, _: last(x, None)[:, 0],
                lambda x, _: module.visual_projection(tower.post_layernorm(x)),
            ]
        import slug.torchvision_cpu  # noqa: F401  (before transformers)

        from transformers.masking_utils import create_causal_mask

        def causal(x: Tensor, layer: Any) -> Tensor:
            mask = create_causal_mask(config=tower.config, inputs_embeds=x, attention_mask=None, past_key_values=None)
            return layer(x, mask, is_causal=True)

        def pooled(x: Tensor, tokens: Tensor) -> Tensor:
            return causal(x, last)[torch.arange(len(x), device=x.device), self.text_lengths(tokens) - 1]

        return [
            lambda x, _: tower.embeddings(x),
            *(lambda x, _, layer=layer: causal(x, layer) for layer in layers),
            pooled,
            lambda x, _: module.text_projection(tower.final_layer_norm(x)),
        ]

    def prefix_stages(self) -> list[Stage]:
        """As Clip.prefix_stages."""
        module, tower = self.module, self.module.text_model
        *layers, last = tower.encoder.layers

        def embed(texts: Prefixes, _: Any) -> Tensor:
            table = tower.embeddings
            return table.token_embedding(texts.words) + table.position_embedding(texts.depths)

        def layer(x: Tensor, texts: Prefixes, layer: Any) -> Tensor:
            normed, attention = layer.layer_norm1(x), layer.self_attn
            parts = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
            return _after_attention(layer, x, texts.attend(*parts, attention.num_heads))

        def pooled(x: Tensor, texts: Prefixes) -> Tensor:
            normed, attention = last.layer_norm1(x), last.self_attn
            parts = attention.q_proj(texts.ends(normed)), attention.k_proj(normed), attention.v_proj(normed)
            return _after_attention(last, texts.ends(x), texts.attend_ends(*parts, attention.num_heads))

        return [
            embed,
            *(functools.partial(layer, layer=each) for each in layers),
            pooled,
            lambda x, _: module.text_projection(tower.final_layer_norm(x)),
        ]

    def stage(self, name: str) -> int:
        block = re.match(r"(vision|text)_model\.encoder\.layers\.(\d+)\.", name)
        if block:
            return 1 + int(block[2])
        head = name.startswith(("visual_projection.", "vision_model.post_", "text_projection.", "text_model.final_"))
        config = self.module.config
        tower = config.vision_config if self.tower(name) == "vision" else config.text_config
        return 1 + tower.num_hidden_layers if head else 0

    def text_lengths(self, tokens: Tensor) -> Tensor:
        """As Clip.text_lengths: these towers are causal, and the first end token is the pooled one."""
        end = self.module.text_model.eos_token_id
        # Older configurations wrongly say 2 for the end token; the library then pools the token with the largest id.
        return (tokens.argmax(dim=-1) if end == 2 else (tokens == end).int().argmax(dim=-1)) + 1

    def whole_image(self, x: Tensor) -> Tensor:
        return self.module.visual_projection(self.module.vision_model(pixel_values=x).pooler_output)

    def whole_text(self, tokens: Tensor) -> Tensor:
        return self.module.text_projection(self.module.text_model(input_ids=tokens).pooler_output)


def _after_attention(layer: Any, x: Tensor, seen: Tensor) -> Tensor:
    """Output (.., W) of a layer for x (.., W), of which its attention sees `seen` (.., W) before its output projection."""
    x = x + layer.self_attn.out_proj(seen)
    return x + layer.mlp(layer.layer_norm2(x))
