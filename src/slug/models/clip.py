"""The small interface: encode pictures and texts, and say which parameters SLUG may edit."""

import contextlib
import math
import re

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torchvision import transforms

from slug import fastpath
from slug.models import canonical


class Clip:
    """A two-tower model in eval mode. Subclasses know one library each.

    Attributes:
        module: the torch module, parameters in float32.
        label: short name for people and file names.
        tag: `{model}_{pretrained}`, safe in file names.
        transform: PIL image -> uint8 (3, S, S); `normalise` makes it what the model eats.
        autocast: dtype of evaluations, or None for float32.
    """

    family = ""

    def __init__(self, module, tokenizer, preprocess, *, label, tag):
        self.module, self.tokenizer, self.label, self.tag = module, tokenizer, label, tag
        self.autocast = None
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

    def encode_image(self, images):
        """uint8 pictures (N, 3, S, S) -> unit features (N, D), float32."""
        return F.normalize(self._image_features(self.normalise(images)).float(), dim=-1)

    def encode_text(self, tokens):
        """Token ids (N, L) -> unit features (N, D), float32."""
        return F.normalize(self._text_features(tokens.to(self.device)).float(), dim=-1)

    def encoder(self, name):
        """Which encoder a parameter may be edited in: "vision", "language", or None if SLUG leaves it alone.

        Left out are biases, logit_scale, scalars, and positional, token and class-token embeddings (paper, section 3).
        """
        parameter = self.parameters[name]
        if name.endswith("bias") or parameter.ndim == 0 or "logit" in name:
            return None
        if "position" in name or "token_embedding" in name or "class_embedding" in name:
            return None
        return "vision" if name.startswith(self.vision_prefixes) else "language"

    def vision_start(self, name):
        """Number of vision blocks that an edit of parameter `name` leaves alone; 0 where the tower cannot start midway."""
        return 0

    @property
    def parameters(self):
        """{name: parameter} of the module."""
        return dict(self.module.named_parameters())

    def candidates(self):
        """{name: "vision" or "language"} of every layer that SLUG may edit, in the module's order."""
        found = {n: self.encoder(n) for n in self.parameters}
        return {n: e for n, e in found.items() if e}

    def group(self, name):
        """The tensors that are updated together with `name`, by one step size: by default itself alone."""
        return (name,)

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

    def vision_start(self, name):
        """As Clip.vision_start, for open_clip's own transformer; the last norm and the projection follow all blocks."""
        visual = self.module.visual
        if type(visual) is not VisionTransformer or not name.startswith("visual."):
            return 0
        block = re.match(r"visual\.transformer\.resblocks\.(\d+)\.", name)
        if block:
            return int(block[1])
        return len(visual.transformer.resblocks) if name.startswith(("visual.proj", "visual.ln_post")) else 0

    def vision_prefix(self, images, start):
        """uint8 pictures (N, 3, S, S) -> what enters vision block `start`: (N, tokens, width)."""
        visual = self.module.visual
        x = visual._embeds(self.normalise(images))
        for block in visual.transformer.resblocks[:start]:
            x = block(x)
        return x

    def vision_suffix(self, x, start):
        """What enters vision block `start` -> unit features (N, D), float32."""
        visual = self.module.visual
        for block in visual.transformer.resblocks[start:]:
            x = block(x)
        pooled, _ = visual._pool(x)
        return F.normalize((pooled if visual.proj is None else pooled @ visual.proj).float(), dim=-1)

    def tokenize(self, texts):
        """Texts -> token ids (N, L)."""
        return self.tokenizer(texts)

    def _image_features(self, x):
        return self.module.encode_image(x)

    def _text_features(self, tokens):
        return fastpath.open_clip_text_features(self.module, tokens)


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
            if part:
                return tuple(name.replace(f".{part}.", f".{m}.") for m in members)
        return (name,)

    def tokenize(self, texts):
        """Texts -> token ids (N, L), padded to the longest."""
        limit = self.module.config.text_config.max_position_embeddings
        return self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt").input_ids

    def _image_features(self, x):
        out = self.module.vision_model(pixel_values=x).pooler_output
        return self.module.visual_projection(out)

    def _text_features(self, tokens):
        out = self.module.text_model(input_ids=tokens).pooler_output
        return self.module.text_projection(out)
