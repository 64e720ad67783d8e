"""SLUG as a technique of the package eval-unlearn, which finds it by its entry point `slug`.

A run of eval-unlearn then needs no code, only a configuration:
{"name": "slug", "config": {"model_id": "path/to/pipeline", "delta": "Owl.delta.safetensors", "erase_concept": "owl"}}
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before diffusers)

import torch

from slug import face, system
from slug.artifacts.folders import EDITS
from slug.errors import SlugError, brief


@dataclass(frozen=True)
class Config:
    """The technique's settings; names and defaults are those of eval-unlearn's own techniques, besides `delta`.

    Attributes:
        model_id: folder of a pipeline, or its id on the Hugging Face Hub.
        delta: delta files of the pipeline, one or several; none where `model_id` is a folder with edits.
        erase_concept: what the report of eval-unlearn calls what is forgotten.
        device: cpu, cuda, ...; by default CUDA where there is one.
        use_fp16: half precision on CUDA.
        num_inference_steps, guidance_scale: of the pipeline.
    """

    model_id: str = ""
    delta: str | Sequence[str] = ()
    erase_concept: str = ""
    device: str = ""
    use_fp16: bool = True
    num_inference_steps: int = 50
    guidance_scale: float = 7.5


class SlugTechnique:
    """A pipeline with SLUG's edits, as eval-unlearn's runners use it."""

    def __init__(self, **config: Any) -> None:
        """`config` as of Config. SlugError: an unknown setting, nothing is forgotten, or a delta of other weights."""
        known = {f.name for f in fields(Config)}
        if unknown := sorted(set(config) - known):
            raise SlugError(f"the technique slug has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        self.config = Config(**config)
        if not self.config.model_id:
            raise SlugError("the technique slug needs model_id, the folder or id of a pipeline")
        deltas = [self.config.delta] if isinstance(self.config.delta, str) else list(self.config.delta)
        folder = _folder(self.config.model_id)
        if not deltas and not (folder / EDITS).is_dir():
            raise SlugError(
                f"{folder} has no edits, and no delta is given: nothing would be forgotten; give delta=, or run the "
                "unedited pipeline and sealed folders as the technique free_run"
            )
        self.device = system.settle(self.config.device or "auto", 0)
        with tempfile.TemporaryDirectory() as temporary:
            edited = face.apply(deltas, str(folder), f"{temporary}/edited") if deltas else str(folder)
            self.pipe = _load(edited, half=self.config.use_fp16 and torch.device(self.device).type == "cuda")
        self.pipe.to(self.device)

    def generate(self, prompts: list[str], seed: int | None = None, **how: Any) -> list[Any]:
        """One PIL picture for each prompt; the k-th one has the seed `seed` + k, as eval-unlearn's free_run has it."""
        settings = {"num_inference_steps": self.config.num_inference_steps, "guidance_scale": self.config.guidance_scale}
        pictures = []
        for k, prompt in enumerate(prompts):
            noise = None if seed is None else torch.Generator(device=self.device).manual_seed(seed + k)
            pictures.append(self.pipe(prompt=prompt, generator=noise, **(settings | how)).images[0])
        return pictures


def _folder(model_id: str) -> Path:
    """The folder of a pipeline; one of the Hub is downloaded once. SlugError if there is none."""
    folder = Path(model_id).expanduser().absolute()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model_id))
    except Exception as err:  # the hub raises many kinds: no network, no such id, no right to read it
        raise SlugError(f"there is no folder {model_id}, and the Hub gives none of this id ({brief(err)})") from err


def _load(folder: str, *, half: bool) -> Any:
    """The pipeline of a folder, without a safety checker: pictures that it blackens would count as forgotten."""
    from diffusers import DiffusionPipeline

    try:
        pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16 if half else torch.float32)
    except Exception as err:  # diffusers raises many kinds; each is a bad folder
        raise SlugError(f"cannot load the pipeline {folder}: {brief(err, 300)}") from err
    if hasattr(pipe, "safety_checker"):
        pipe.safety_checker, pipe.requires_safety_checker = None, False
    return pipe
