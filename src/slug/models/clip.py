"""The small interface: encode pictures and texts, and say which parameters SLUG may edit."""

import contextlib
import functools
import math
import re

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch.utils.checkpoint import checkpoint
from torchvision import transforms

from slug.models import canonical, towers
from slug.models.canonical import ALONE

# Embeddings that open_clip, timm and transformers hold as bare parameters; the others are torch.nn.Embedding.
EMBEDDINGS = ("positional_embedding", "class_embedding", "pos_embed", "cls_token", "reg_token")


class Clip:
    """A two-tower model in eval mode. Subclasses know one library each.

    Attributes:
        module: the torch module, parameters in float32.
        label: short name for people and file names.
        tag: `{model}_{pretrained}`, safe in file names.
        transform: PIL image -> uint8 (3, S, S); `normalise` makes it what the model eats.
        autocast: dtype of evaluations, or None for float32.
        checkpointing: whether a gradient pass keeps what enters a stage only and computes the rest twice, for its memory.
    """

    family = ""

    def __init__(self, module, tokenizer, preprocess, *, label, tag):
        self.module, self.tokenizer, self.label, self.tag = module, tokenizer, label, tag
        self.autocast, self.checkpointing = None, False
        steps = preprocess.transforms
        cut = next(i for i, t in enumerate(steps) if isinstance(t, transforms.ToTensor))
        rescale = next(t for t in steps if isinstance(t, transforms.Normalize))
        # Resize and crop as the model's own preprocessing does, but stop at uint8: a quarter of the memory.
        self.transform = transforms.Compose([*steps[:cut], transforms.PILToTensor()])
        self.mean, self.std = torch.tensor(rescale.mean), torch.tensor(rescale.std)

    @property
    def device(self):
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @property
    def side(self):
        """Side of the pictures that `transform` makes, in pixels."""
        size = self.transform.transforms[0].size
        return size if isinstance(size, int) else size[0]

    def normalise(self, images):
        """uint8 pictures (N, 3, S, S) on any device -> float32 on the model's, with the model's mean and deviation."""
        x = images.to(self.device).float() / 255
        return (x - self.mean.to(x.device).view(3, 1, 1)) / self.std.to(x.device).view(3, 1, 1)

    def evaluating(self):
        """Context of an evaluation: no gradients, autocast as asked for."""
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode())
        if self.autocast:
            stack.enter_context(torch.autocast(self.device.type, dtype=self.autocast))
        return stack

    def unit(self, features):
        """Features (N, D) brought to length 1, float32."""
        return F.normalize(features.float(), dim=-1)

    def encode_image(self, images):
        """uint8 pictures (N, 3, S, S) -> unit features (N, D), float32."""
        return self.unit(self._run("vision", images))

    def encode_text(self, tokens, trim=True):
        """Token ids (N, L) -> unit features (N, D), float32; `trim` spares the tower what cannot matter to them."""
        tokens = self.trimmed(tokens) if trim else tokens
        return self.unit(self._run("language", tokens.to(self.device)))

    def _run(self, encoder, inputs):
        """The whole chain of stages of a tower."""
        stages = self.stages(encoder)
        if self.checkpointing and torch.is_grad_enabled():
            if len(stages) == 1:
                self.recompute(encoder)
            else:
                stages = [functools.partial(checkpoint, stage, use_reentrant=False) for stage in stages]
        return towers.run(stages, inputs, inputs)

    def recompute(self, encoder):
        """Switch on the library's own checkpointing in a tower whose blocks are not known here."""

    def stages(self, encoder):
        """The chain of functions (x, inputs) -> x whose composition encodes; in a family it knows not, one alone.

        `inputs` are what the first one is given: uint8 pictures (N, 3, S, S), or token ids (N, L).
        """
        if encoder == "vision":
            return [lambda x, _: self.whole_image(self.normalise(x))]
        return [lambda x, _: self.whole_text(x)]

    def stage(self, name):
        """The first stage that reads parameter `name`: what enters it does not depend on the parameter."""
        return 0

    def text_lengths(self, tokens):
        """(N,) number of tokens of each text that can matter: to the end token where the tower is causal, else all."""
        return torch.full((len(tokens),), tokens.shape[1])

    def trimmed(self, tokens):
        """Token ids (N, L) cut to the longest of them: what follows the end token cannot reach it in a causal tower."""
        return tokens[:, : int(self.text_lengths(tokens).max())]

    def encoder(self, name):
        """Which encoder a parameter may be edited in: "vision", "language", or None if SLUG leaves it alone.

        Left out are biases, logit_scale, scalars, and positional, token and class-token embeddings (paper, section 3).
        """
        parameter = self.parameters[name]
        if name.endswith("bias") or parameter.ndim == 0 or "logit" in name:
            return None
        if name in self._tables or name.rpartition(".")[2] in EMBEDDINGS:
            return None
        return self.tower(name)

    @functools.cached_property
    def _tables(self):
        """Names of the weights of lookup tables: of tokens, their types, and positions."""
        modules = self.module.named_modules()
        return {f"{n}.weight" for n, m in modules if isinstance(m, torch.nn.Embedding)}

    def tower(self, name):
        """Which tower a parameter belongs to: "vision" or, as the factor of the cosines does here, "language"."""
        return "vision" if name.startswith(self.vision_prefixes) else "language"

    @property
    def parameters(self):
        """{name: parameter} of the module."""
        return dict(self.module.named_parameters())

    def candidates(self):
        """{name: "vision" or "language"} of every layer that SLUG may edit, in the module's order."""
        found = {n: self.encoder(n) for n in self.parameters}
        return {n: e for n, e in found.items() if e}

    def group(self, name):
        """The tensors that are updated together with `name`, by one step size: by default itself alone; with ALONE behind
        its name always."""
        return (name.removesuffix(ALONE),)

    def canonical_views(self, tensors):
        """{name: tensor} of this model -> {canonical name: view}."""
        return canonical.all_views(self.family, tensors)

    def scale(self):
        """The factor of the cosines in the contrastive loss (a scalar tensor)."""
        return self.module.logit_scale.exp()

    def clamp_scale(self):
        """Keep the factor between 1 and 100 after a training step, as CLIP's training does."""
        self.module.logit_scale.clamp_(0, math.log(100))


class OpenClip(Clip):
    """A CLIP of the open_clip library."""

    vision_prefixes = ("visual.",)

    def __init__(self, module, tokenizer, preprocess, **names):
        super().__init__(module, tokenizer, preprocess, **names)
        try:
            self.family = "open_clip_vit"
            self.canonical_views(self.parameters)
        except KeyError:  # a ResNet, a timm tower, a Hugging Face text tower: no common names, its own are kept
            self.family = "open_clip"

    @property
    def _towers(self):
        """{encoder: (transformer, prefix of its parameters' names, what the head's names start with)} of plain towers."""
        module, found = self.module, {}
        visual = module.visual
        if type(visual) is VisionTransformer and visual.attn_pool is None and visual.pool_type == "tok":
            found["vision"] = visual.transformer, "visual.transformer.", ("visual.proj", "visual.ln_post.")
        if type(module) is CLIP and module.attn_mask is not None and module.text_pool_type == "argmax":
            found["language"] = module.transformer, "transformer.", ("text_projection", "ln_final.")
        plain = {e: t for e, t in found.items() if all(type(b) is ResidualAttentionBlock for b in t[0].resblocks)}
        return {e: t for e, t in plain.items() if t[0].batch_first and len(t[0].resblocks)}

    def stages(self, encoder):
        """As Clip.stages; for open_clip's own transformers: embedding, blocks, head. Only the pooled token leaves the
        last block, so what else it would compute is not computed. A ResNet's stages are its own."""
        visual = self.module.visual
        if encoder == "vision" and type(visual) is ModifiedResNet:
            blocks = [visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4, visual.attnpool]
            rest = [lambda x, _, block=block: block(x) for block in blocks[1:]]
            return [lambda x, _: visual.stem(self.normalise(x)), *rest]
        if encoder not in self._towers:
            return super().stages(encoder)
        *blocks, last = self._towers[encoder][0].resblocks
        if encoder == "vision":
            middle = [lambda x, _, block=block: _block(block, x) for block in blocks]
            return [
                lambda x, _: visual._embeds(self.normalise(x)),
                *middle,
                lambda x, _: _pooled_block(last, x, x[:, :1]),
                lambda x, _: _project(visual.ln_post(x), visual.proj),
            ]
        module = self.module

        def embed(x, _):
            dtype = module.transformer.get_cast_dtype()
            return module.token_embedding(x).to(dtype) + module.positional_embedding[: x.shape[1]].to(dtype)

        def pooled(x, tokens):
            end = tokens.argmax(dim=-1)  # the end token has the largest id
            after = torch.arange(x.shape[1], device=x.device) > end[:, None]
            return _pooled_block(last, x, x[torch.arange(len(x), device=x.device), end][:, None], after)

        mask = module.attn_mask
        middle = [lambda x, _, block=block: _block(block, x, mask[: x.shape[1], : x.shape[1]]) for block in blocks]
        return [embed, *middle, pooled, lambda x, _: _project(module.ln_final(x), module.text_projection)]

    def stage(self, name):
        """As Clip.stage."""
        encoder = "vision" if name.startswith(self.vision_prefixes) else "language"
        layer = re.match(r"visual\.(layer\d|attnpool)\.", name)
        if layer and type(self.module.visual) is ModifiedResNet:
            return 5 if layer[1] == "attnpool" else int(layer[1][-1])
        if encoder not in self._towers:
            return 0
        transformer, prefix, after = self._towers[encoder]
        block = re.match(re.escape(prefix) + r"resblocks\.(\d+)\.", name)
        return 1 + int(block[1]) if block else 1 + len(transformer.resblocks) if name.startswith(after) else 0

    def text_lengths(self, tokens):
        """As Clip.text_lengths."""
        return tokens.argmax(dim=-1) + 1 if "language" in self._towers else super().text_lengths(tokens)

    def recompute(self, encoder):
        """As Clip.recompute."""
        tower = self.module.visual if encoder == "vision" else getattr(self.module, "text", self.module)
        tower.set_grad_checkpointing(True)

    def tokenize(self, texts):
        """Texts -> token ids (N, L)."""
        return self.tokenizer(texts)

    def whole_image(self, x):
        """Normalised pictures -> features by the library's own forward pass."""
        return self.module.encode_image(x)

    def whole_text(self, tokens):
        """Token ids -> features by the library's own forward pass."""
        return self.module.encode_text(tokens)


def _attend(attention, query, keys, mask=None):
    """What an nn.MultiheadAttention in eval mode gives for queries (N, Q, W) and keys (N, L, W), which may be the same: the
    library's own way turns the batch inside out, and its products run at half the speed.

    Args:
        mask: what scaled_dot_product_attention takes.
    """
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if query is keys:
        parts = F.linear(keys, weight, bias).chunk(3, -1)
    else:
        width = query.shape[-1]
        first, rest = (None, None) if bias is None else (bias[:width], bias[width:])
        parts = F.linear(query, weight[:width], first), *F.linear(keys, weight[width:], rest).chunk(2, -1)
    heads = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    return attention.out_proj(F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2))


def _block(block, x, mask=None):
    """A transformer block on (N, L, W); a gradient pass takes the library's own."""
    if torch.is_grad_enabled():
        return block(x, attn_mask=mask)
    normed = block.ln_1(x)
    x = x + block.ls_1(_attend(block.attn, normed, normed, mask))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _pooled_block(block, x, query, after=None):
    """What a transformer block makes of the tokens that are pooled: (N, W).

    Args:
        x: (N, L, W) what enters the block.
        query: (N, 1, W) the pooled tokens among them.
        after: (N, L) bool, tokens that a causal block hides from the query.
    """
    keys = block.ln_1(x)
    hidden = None if after is None or not after.any() else after
    if torch.is_grad_enabled():
        seen, _ = block.attn(block.ln_1(query), keys, keys, key_padding_mask=hidden, need_weights=False)
    else:
        seen = _attend(block.attn, block.ln_1(query), keys, None if hidden is None else ~hidden[:, None, None])
    query = query + block.ls_1(seen)
    return (query + block.ls_2(block.mlp(block.ln_2(query))))[:, 0]


def _project(x, projection):
    """Pooled features (N, W) through a tower's projection: a matrix, a linear layer, or none."""
    if projection is None:
        return x
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


class HuggingFaceClip(Clip):
    """A CLIPModel of the transformers library; q, k, v and fc1, fc2 are separate tensors that move together."""

    family = "hf"
    vision_prefixes = ("vision_model.", "visual_projection.")

    def encoder(self, name):
        """As Clip.encoder, without the norms: the published Hugging Face runs leave them out."""
        return None if "norm" in name or "layrnorm" in name else super().encoder(name)

    def group(self, name):
        """q, k and v together, fc1 and fc2 together, everything else alone."""
        for members in (("q_proj", "k_proj", "v_proj"), ("fc1", "fc2")):
            part = next((m for m in members if f".{m}." in name), None)
            if part and not name.endswith(ALONE):
                return tuple(name.replace(f".{part}.", f".{m}.") for m in members)
        return super().group(name)

    def tokenize(self, texts):
        """Texts -> token ids (N, L), padded to the longest."""
        limit = self.module.config.text_config.max_position_embeddings
        return self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt").input_ids

    def stages(self, encoder):
        """As Clip.stages: embedding, layers, head; only the pooled token leaves the last layer."""
        from transformers.masking_utils import create_causal_mask

        module = self.module
        if encoder == "vision":
            tower = module.vision_model
            *layers, last = tower.encoder.layers
            middle = [lambda x, _, layer=layer: layer(x, None) for layer in layers]
            return [
                lambda x, _: tower.pre_layrnorm(tower.embeddings(self.normalise(x))),
                *middle,
                lambda x, _: last(x, None)[:, 0],
                lambda x, _: module.visual_projection(tower.post_layernorm(x)),
            ]
        tower = module.text_model
        *layers, last = tower.encoder.layers

        def causal(layer):
            def masked(x, _):
                mask = create_causal_mask(config=tower.config, inputs_embeds=x, attention_mask=None, past_key_values=None)
                return layer(x, mask, is_causal=True)

            return masked

        def pooled(x, tokens):
            return causal(last)(x, tokens)[torch.arange(len(x), device=x.device), self.text_lengths(tokens) - 1]

        return [
            lambda x, _: tower.embeddings(x),
            *map(causal, layers),
            pooled,
            lambda x, _: module.text_projection(tower.final_layer_norm(x)),
        ]

    def stage(self, name):
        """As Clip.stage."""
        block = re.match(r"(vision|text)_model\.encoder\.layers\.(\d+)\.", name)
        if block:
            return 1 + int(block[2])
        config = self.module.config
        if name.startswith(("visual_projection.", "vision_model.post_layernorm.")):
            return 1 + config.vision_config.num_hidden_layers
        if name.startswith(("text_projection.", "text_model.final_layer_norm.")):
            return 1 + config.text_config.num_hidden_layers
        return 0

    def text_lengths(self, tokens):
        """As Clip.text_lengths: these towers are causal, and the first end token is the pooled one."""
        end = self.module.text_model.eos_token_id
        # Configurations older than the library's fix say 2, and then the largest id is the end token.
        return (tokens.argmax(dim=-1) if end == 2 else (tokens == end).int().argmax(dim=-1)) + 1

    def whole_image(self, x):
        """As OpenClip.whole_image."""
        return self.module.visual_projection(self.module.vision_model(pixel_values=x).pooler_output)

    def whole_text(self, tokens):
        """As OpenClip.whole_text."""
        return self.module.text_projection(self.module.text_model(input_ids=tokens).pooler_output)
