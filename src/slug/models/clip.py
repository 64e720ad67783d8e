"""The interface that every CLIP has here: encode images and texts, and say which parameters SLUG may edit."""

import contextlib
import functools
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision import transforms

from slug.data.images import read
from slug.errors import SlugError
from slug.models import canonical, towers
from slug.models.canonical import ALONE
from slug.models.towers import Stage

# Embeddings that open_clip, timm and transformers hold as bare parameters; the others are torch.nn.Embedding.
EMBEDDINGS = ("positional_embedding", "class_embedding", "pos_embed", "cls_token", "reg_token")


class TrainingCrop:
    """A random resized crop of scale 0.9 to 1, as CLIPs are trained with: PIL image -> uint8 image (3, side, side).

    The draw follows from the picture itself, so that it depends on no order and on no number of processes.
    """

    def __init__(self, side: int) -> None:
        crop = transforms.RandomResizedCrop(
            side, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC, antialias=None
        )
        self.steps = transforms.Compose([crop, transforms.PILToTensor()])

    def __call__(self, image: Any) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(image.tobytes()))
            return self.steps(image)


class Clip:
    """A model of two towers in eval mode, with float32 parameters. Each subclass knows one library."""

    family = ""
    vision_prefixes: tuple[str, ...] = ()  # beginnings of the names of the vision tower's parameters

    def __init__(self, module: torch.nn.Module, tokenizer: Any, preprocess: transforms.Compose, *, label: str, tag: str):
        """`label` is a short name for people and file names; `tag` is `{model}_{pretrained}`, safe in file names."""
        self.module: Any = module
        self.tokenizer, self.label, self.tag = tokenizer, label, tag
        self.origin = ""  # the folder it was loaded from, where it is known
        self.autocast: torch.dtype | None = None  # dtype of evaluations; None is float32
        self.checkpointing = False  # the gradient pass computes activations twice, to save memory
        steps = preprocess.transforms
        cut = next(i for i, t in enumerate(steps) if isinstance(t, transforms.ToTensor))
        rescale = next(t for t in steps if isinstance(t, transforms.Normalize))
        # Resize and crop as the model's own preprocessing does, but stop at uint8: a quarter of the memory.
        self.transform = transforms.Compose([*steps[:cut], transforms.PILToTensor()])
        self.mean, self.std = torch.tensor(rescale.mean), torch.tensor(rescale.std)

    @property
    def training_transform(self) -> "TrainingCrop":
        """What the published code does to retain pictures before the gradient pass, in place of `transform`."""
        return TrainingCrop(self.side)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def side(self) -> int:
        """Side S in pixels of the uint8 images (3, S, S) that `transform` makes of PIL images."""
        # The crop, if there is one, comes after the resize.
        size = [t.size for t in self.transform.transforms if hasattr(t, "size")][-1]
        return size if isinstance(size, int) else size[0]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images (N, 3, S, S) on any device -> float32 on the model's device, with the model's mean and deviation."""
        x = images.to(self.device).float() / 255
        return (x - self.mean.to(x.device).view(3, 1, 1)) / self.std.to(x.device).view(3, 1, 1)

    def evaluating(self) -> contextlib.ExitStack:
        """Context of an evaluation: no gradients, and autocast to `autocast`."""
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode())
        if self.autocast:
            stack.enter_context(torch.autocast(self.device.type, dtype=self.autocast))
        return stack

    def unit(self, features: Tensor) -> Tensor:
        """Features (N, D) scaled to length 1, float32."""
        return F.normalize(features.float(), dim=-1)

    def encode_image(self, images: Tensor) -> Tensor:
        """uint8 images (N, 3, S, S) -> unit features (N, D), float32."""
        return self.unit(self._run("vision", images))

    def encode_text(self, tokens: Tensor, trim: bool = True) -> Tensor:
        """Token ids (N, L) -> unit features (N, D), float32; `trim` cuts tokens that cannot change them."""
        tokens = self.trimmed(tokens) if trim else tokens
        return self.unit(self._run("language", tokens.to(self.device)))

    def _run(self, encoder: str, inputs: Tensor) -> Tensor:
        """Output (N, D) of all stages of a tower."""
        stages = self.stages(encoder)
        if self.checkpointing and torch.is_grad_enabled():
            if len(stages) == 1:
                self.checkpoint_tower(encoder)
            else:
                stages = [functools.partial(checkpoint, stage, use_reentrant=False) for stage in stages]
        return towers.run(stages, inputs, inputs)

    def checkpoint_tower(self, encoder: str) -> None:
        """Switch on the library's own checkpointing in a tower that is a single stage here."""

    def tokenize(self, texts: list[str]) -> Tensor:
        """Texts -> token ids (N, L)."""
        raise NotImplementedError

    def whole_image(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, S, S) -> features (N, D) by the library's own forward pass."""
        raise NotImplementedError

    def whole_text(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L) -> features (N, D) by the library's own forward pass."""
        raise NotImplementedError

    def stages(self, encoder: str) -> list[Stage]:
        """The chain of functions (x, inputs) -> x that encodes; a tower of unknown structure is a single stage.

        `inputs` are what the first stage gets as x: uint8 images (N, 3, S, S), or token ids (N, L).
        """
        if encoder == "vision":
            return [lambda x, _: self.whole_image(self.normalise(x))]
        return [lambda x, _: self.whole_text(x)]

    def prefix_stages(self) -> list[Stage] | None:
        """`stages("language")` for texts laid out as a prefix tree of M nodes: functions (x, Prefixes) -> x. The first gets
        the tree as x, its followers (M, W), the last (N, W). None: the tower is not causal, or of unknown structure."""
        return None

    def stage(self, name: str) -> int:
        """Number of the first stage that reads parameter `name`: the input of this stage does not depend on it."""
        return 0

    def text_lengths(self, tokens: Tensor) -> Tensor:
        """(N,) number of leading tokens that the features depend on: up to the end token in a causal tower, else all."""
        return torch.full((len(tokens),), tokens.shape[1])

    def trimmed(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L) cut to the longest text: in a causal tower nothing after the end token can reach it."""
        return tokens[:, : int(self.text_lengths(tokens).max())]

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.module.named_parameters())

    def changing(self, names: Iterable[str]) -> contextlib.AbstractContextManager[Any]:
        """Context within which these parameters may hold other values; it has to be entered for temporary edits."""
        return contextlib.nullcontext()

    def encoder(self, name: str) -> str | None:
        """The encoder in which SLUG may edit a parameter: "vision" or "language"; None where it may not.

        It may not edit biases, logit_scale, scalars, and positional, token and class-token embeddings (paper, section 3).
        """
        parameter = self.parameters[name]
        embedding = name in self._tables or name.rpartition(".")[2] in EMBEDDINGS
        return None if name.endswith("bias") or parameter.ndim == 0 or "logit" in name or embedding else self.tower(name)

    @functools.cached_property
    def _tables(self) -> set[str]:
        """Names of the weights of lookup tables: of tokens, their types, and positions."""
        return {
            f"{n}.weight"
            for n, m in self.module.named_modules()
            if isinstance(m, (torch.nn.Embedding, torch.nn.EmbeddingBag))
        }

    def tower(self, name: str) -> str:
        """The tower of a parameter: "vision" or "language"; the factor of the cosines counts as language."""
        return "vision" if name.startswith(self.vision_prefixes) else "language"

    def candidates(self) -> dict[str, str]:
        """{name: "vision" or "language"} of each layer that SLUG may edit, in the module's order."""
        found = {n: self.encoder(n) for n in self.parameters}
        return {n: e for n, e in found.items() if e}

    def group(self, name: str) -> tuple[str, ...]:
        """The parameters that move together with `name`, by one step size; with the suffix ALONE, only `name` itself."""
        return (name.removesuffix(ALONE),)

    def canonical_views(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{name: tensor} of this model -> {canonical name: view}."""
        return canonical.all_views(self.family, tensors)

    def scale(self) -> Tensor:
        """The factor of the cosines in the contrastive loss (a scalar tensor)."""
        return self.module.logit_scale.exp()

    def clamp_scale(self) -> None:
        """Keep the factor between 1 and 100 after a training step, as CLIP's training does."""
        self.module.logit_scale.clamp_(0, math.log(100))

    def classify(
        self,
        images: Sequence[Any],
        names: Sequence[str],
        *,
        top: int = 5,
        templates: Sequence[str] = ("{}.", "a photo of a {}."),
    ) -> list[list[tuple[str, float]]]:
        """The names that pictures are taken for: for each picture the `top` [(name, probability among the names)].

        Args:
            images: paths, or PIL pictures.
            templates: prompts of a name, whose features are averaged.
        Raises:
            SlugError: no picture or name is given, or a picture cannot be read.
        """
        if isinstance(images, (str, os.PathLike, Image.Image)):
            raise SlugError("classify takes a list of pictures; for one picture write classify([picture], names)")
        if not images or not names:
            raise SlugError("classify needs at least one picture and one name")
        pictures = torch.stack([self.transform(_open(image)) for image in images])
        texts = [template.format(name) for name in names for template in templates]
        with self.evaluating():
            features, prompts = self.encode_image(pictures), self.encode_text(self.tokenize(texts))
            weights = F.normalize(prompts.view(len(names), len(templates), -1).mean(1), dim=-1)
            shares = (self.scale() * features @ weights.T).softmax(-1).cpu()
        best = shares.topk(min(top, len(names)))
        return [
            [(names[i], value) for i, value in zip(places, values, strict=True)]
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _open(image: Any) -> Image.Image:
    """A PIL picture, or the file of one, in RGB. SlugError if it cannot be read."""
    found = image if isinstance(image, Image.Image) else read(image)
    if found is None:
        raise SlugError(f"cannot read the picture {image}; it is missing, or damaged")
    return found.convert("RGB")
