"""Pipelines of Stable Diffusion XL: two text encoders, each the text tower of a CLIP of its own.

The UNet's cross-attention reads the last but one hidden states of both text encoders; beside them it gets one vector, the
projection of the second encoder (Podell et al., ICLR 2024). An edit names the text encoder before each of its tensors.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from slug.models import diffusion, loading, pipeline_folders
from slug.models.canonical import TEXT
from slug.models.clip import Clip
from slug.models.diffusion import Diffusion
from slug.models.host import HostModel

FIRST, SECOND = ENCODERS = "text_encoder", "text_encoder_2"
PARTS = {**diffusion.PARTS, SECOND: "CLIPTextModelWithProjection"}


class TextEncoder(HostModel):
    """One text encoder of a pipeline, with the CLIP whose text tower it is."""

    encoder, prefix = "language", TEXT

    def __init__(self, module: torch.nn.Module, clip: Clip, name: str, pipeline: str) -> None:
        """Raises SlugError if the CLIP is another one."""
        super().__init__(clip)
        self.module, self.label = module, f"{name} of {pipeline}"
        found = self.tower_tensors(module, f"pipeline's {name}")
        # Without what the hidden states do not depend on: where the last block or the projection forgets, the CLIP does not
        # recognise a name any more, and the cross-attention reads as much of it as before.
        self.tensors = {n: p for n, p in found.items() if self._before_last_block(n)}

    def _before_last_block(self, name: str) -> bool:
        block = re.search(r"encoder\.layers\.(\d+)\.", name)
        last = self.clip.module.config.text_config.num_hidden_layers - 1
        return int(block[1]) < last if block else "final_layer_norm" not in name

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {"": self.module}


class DiffusionXL(Diffusion):
    """A StableDiffusionXLPipeline with the CLIPs of its text encoders, {text encoder: CLIP}."""

    parts = PARTS

    def __init__(self, pipe: Any, clips: Mapping[str, Clip], **how: Any) -> None:
        """`how` as for Diffusion. Raises SlugError if a CLIP is not that of its text encoder."""
        self.clips = clips
        super().__init__(pipe, clips[FIRST], **how)

    @property
    def towers(self) -> Mapping[str, HostModel]:
        """As HostModel.towers: the text encoders."""
        return self._towers

    def text_tensors(self) -> dict[str, torch.nn.Parameter]:
        """As Diffusion.text_tensors, of both text encoders."""
        self._towers = {n: TextEncoder(getattr(self.pipe, n), clip, n, self.label) for n, clip in self.clips.items()}
        return {f"{name}.{n}": p for name, tower in self._towers.items() for n, p in tower.tensors.items()}

    def candidates(self) -> list[str]:
        """As HostModel.candidates, of both text encoders."""
        return [f"{name}.{n}" for name, tower in self.towers.items() for n in tower.candidates()]

    def encode(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """As Diffusion.encode: the hidden states of both encoders beside each other (N, L, W), and the projection (N, D)."""
        how: dict[str, Any] = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        states, _, projected, _ = self.pipe.encode_prompt(prompts, device=self.pipe.device, **how)
        return states, projected

    def conditions(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """As Diffusion.conditions; in place of the empty prompt some pipelines read zeros."""
        own, names = self.encoded(prompts), ("prompt_embeds", "pooled_prompt_embeds")
        found = dict(zip(names, own, strict=True))
        if self.guidance > 1:
            zeros = self.pipe.config.force_zeros_for_empty_prompt
            empty = [torch.zeros_like(t) for t in own] if zeros else self.encoded([""])
            found |= {f"negative_{n}": e.expand_as(found[n]) for n, e in zip(names, empty, strict=True)}
        return found


def load(
    pipeline: str,
    clip: str,
    clip_2: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **how: Any,
) -> DiffusionXL:
    """The DiffusionXL of a pipeline and of the CLIPs of its text encoders, ids or folders; `how` goes to Diffusion.

    Raises SlugError if one is missing or damaged, the pipeline is no SDXL, or has other CLIPs.
    """
    pipe = pipeline_folders.read(
        pipeline, "StableDiffusionXLPipeline", PARTS, device=device, dtype=dtype, add_watermarker=False
    )
    clips = {n: loading.load(clip_model_id=c, device=device) for n, c in zip(ENCODERS, (clip, clip_2), strict=True)}
    loaded = DiffusionXL(pipe, clips, **how)
    diffusion.checked(loaded, pipeline)
    return loaded
