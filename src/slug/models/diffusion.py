"""Stable Diffusion pipelines: images from prompts and seeds.

SLUG edits the text tower (see slug.models.host); the baselines edit the UNet.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before diffusers)

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from slug import files, progress, settings, system
from slug.data.images import by_batch, decode
from slug.errors import SlugError
from slug.models import folders, loading, pipeline_folders
from slug.models.canonical import TEXT, UNET
from slug.models.clip import Clip
from slug.models.host import HostModel

PARTS = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}  # {part: its class}
Wanted = Sequence[tuple[str, int]]  # (prompt, seed) of each image


# What is black all over shows a safety checker's veto, or NaN; pictures of this project's own pipelines have no checker.
REMEDY = (
    "NaN ends as black, so give --precision fp32; a safety checker draws black, too: switch it off with safety_checker=None "
    "in the program that made such pictures"
)


class BrokenPictures(SlugError):
    """Pictures that are NaN: they would be saved as black ones, and pass for forgotten."""


class Diffusion(HostModel):
    """A StableDiffusionPipeline with the CLIP of its text tower. In edits the UNet's parameters have the prefix UNET."""

    encoder, prefix = "language", TEXT
    parts = PARTS

    def __init__(
        self,
        pipe: Any,
        clip: Clip,
        *,
        steps: int,  # of denoising
        guidance: float,  # classifier-free guidance scale; no guidance up to 1
        size: int | None = None,  # side of the images in pixels; 0 or None is the pipeline's own
        batch_size: int = 16,  # images generated at once
        autocast: torch.dtype | None = None,  # in which images are generated; None is the weights' dtype
    ):
        """Raises SlugError if the CLIP is not that of the pipeline's text tower."""
        super().__init__(clip)
        self.pipe = pipe
        self.label = str(pipe.name_or_path).rstrip("/").rsplit("/", 1)[-1]  # folder name, or last part of the id
        self.steps, self.guidance, self.batch_size, self.autocast = steps, guidance, batch_size, autocast
        self.size = size or pipe.unet.config.sample_size * pipe.vae_scale_factor
        self.embeddings: dict[str, tuple[Tensor, ...]] = {}  # {prompt: what `encode` makes of it} under the present weights
        pipe.set_progress_bar_config(disable=True)
        for module in self.modules.values():
            module.requires_grad_(False)  # trainings switch on the gradients that they need
        self.tensors = self.text_tensors() | {UNET + n: p for n, p in pipe.unet.named_parameters()}

    def text_tensors(self) -> dict[str, torch.nn.Parameter]:
        """{name in an edit: parameter} of the tensors that the pipeline reads: it has no text projection, and SD 2.1 has
        no last block."""
        return self.tower_tensors(self.pipe.text_encoder, "pipeline's text tower")

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {part: getattr(self.pipe, part) for part in self.parts}

    def hash(self) -> str:
        """Hash of all weights and settings that generated images depend on."""
        scheduler, cast = self.pipe.scheduler, () if self.autocast is None else (str(self.autocast),)
        how = (*cast, self.steps, self.guidance, self.size, type(scheduler).__name__, sorted(scheduler.config.items()))
        return hashlib.sha256(f"{self.weights_hash()}{how}".encode()).hexdigest()

    def training_schedule(self) -> Any:
        """DDPMScheduler with the pipeline's noise levels, for adding noise in trainings.

        The pipeline's own sampler will not do: before set_timesteps, DPM-Solver counts timesteps from the end.
        """
        from diffusers import DDPMScheduler

        return DDPMScheduler.from_config(self.pipe.scheduler.config)

    @contextlib.contextmanager
    def separate_embeddings(self) -> Iterator[None]:
        """Context within which prompts are embedded anew; the earlier embeddings are back after it."""
        outer, self.embeddings = self.embeddings, {}
        try:
            yield
        finally:
            self.embeddings = outer

    def changing(self, names: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """As Clip.changing: if the text tower changes, so do the embeddings of prompts."""
        text = any(not n.startswith(UNET) for n in names)
        return self.separate_embeddings() if text else contextlib.nullcontext()

    @contextlib.contextmanager
    def with_lora(self, folder: Path) -> Iterator[None]:
        """Context within which the pipeline has an adapter (see slug.artifacts.adapters) loaded by diffusers."""
        with self.separate_embeddings():
            self.pipe.load_lora_weights(folder)
            try:
                yield
            finally:
                self.pipe.unload_lora_weights()

    def encode(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """What the UNet reads of N prompts under the present weights: their last hidden states (N, L, W)."""
        states, _ = self.pipe.encode_prompt(prompts, self.pipe.device, 1, do_classifier_free_guidance=False)
        return (states,)

    def encoded(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """As `encode`, but each prompt is computed once under the present weights."""
        missing = [p for p in dict.fromkeys(prompts) if p not in self.embeddings]
        for i in range(0, len(missing), 64):
            part = missing[i : i + 64]
            self.embeddings.update(zip(part, zip(*self.encode(part), strict=True), strict=True))
        return tuple(torch.stack(rows) for rows in zip(*(self.embeddings[p] for p in prompts), strict=True))

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states (N, L, W) of N prompts; each prompt is computed once under the present weights."""
        return self.encoded(prompts)[0]

    def conditions(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the pipeline's call takes of N prompts, and of the empty one where there is guidance."""
        found = {"prompt_embeds": self.embed(prompts)}
        if self.guidance > 1:
            found["negative_prompt_embeds"] = self.embed([""]).expand_as(found["prompt_embeds"])
        return found

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], desc: str | None = None, *, blacken: bool = False
    ) -> Tensor:
        """One image for each of N prompts and seeds: (N, 3, size, size) uint8 on the CPU.

        An image depends on its own prompt and seed only, not on the others of its batch.

        Args:
            blacken: return images that are NaN as black ones, for callers that leave these out (see `sound`), instead of
                raising BrokenPictures.
        """
        images = self._run(prompts, seeds, "pt", desc, strict=not blacken)
        images = torch.where(torch.isfinite(images).flatten(1).all(1).view(-1, 1, 1, 1), images, 0)
        return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)

    def latents(self, prompts: Sequence[str], seeds: Sequence[int], desc: str | None = None) -> Tensor:
        """As `generate`, but the UNet's latents (N, C, H, W) before the decoder."""
        return self._run(prompts, seeds, "latent", desc)

    @torch.no_grad()
    def _run(self, prompts: Sequence[str], seeds: Sequence[int], kind: str, desc: str | None, strict: bool = True) -> Tensor:
        channels, side = self.pipe.unet.config.in_channels, self.size // self.pipe.vae_scale_factor
        out = []
        starts = range(0, len(prompts), self.batch_size)
        for i in progress.bar(starts, desc=desc, unit="batch", leave=False, shown=desc is not None):
            part = slice(i, i + self.batch_size)
            text = self.conditions(prompts[part])
            noise = [torch.randn(channels, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds[part]]
            with torch.autocast(self.pipe.device.type, self.autocast, enabled=self.autocast is not None):
                images = self.pipe(
                    **text,
                    latents=torch.stack(noise).to(self.pipe.device, text["prompt_embeds"].dtype),
                    height=self.size,
                    width=self.size,
                    num_inference_steps=self.steps,
                    guidance_scale=self.guidance,
                    output_type=kind,
                ).images
            broken = int((~torch.isfinite(images).flatten(1).all(1)).sum())
            if broken and strict:
                raise BrokenPictures(
                    f"{broken} of {len(images)} pictures of {self.label} are NaN, which would be saved as black pictures; "
                    "none is scored or kept: give --precision fp32, or a smaller step"
                )
            out.append(images.cpu())
        return torch.cat(out)


def is_black(path: Path) -> bool:
    """Whether an image file is black all over, as a safety checker and NaN leave it. False for a damaged file."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB").getbbox() is None
    except (OSError, ValueError):
        return False  # those who read it say so


def sound(pictures: Tensor | Sequence[Path], what: str) -> list[int]:
    """Places of the pictures that are not black all over; the others are counted in a line for the terminal.

    Args:
        pictures: (N, 3, H, W) uint8, or N image files.
        what: whose pictures they are.
    """
    dark = (pictures.flatten(1).amax(1) == 0).tolist() if isinstance(pictures, Tensor) else [is_black(p) for p in pictures]
    if any(dark):
        print(f"{what}: left out {sum(dark)} of {len(dark)} pictures, which are black all over; {REMEDY}")
    return [i for i, black in enumerate(dark) if not black]


def not_black(paths: Sequence[Path], wanted: Wanted, what: str) -> list[tuple[Path, str]]:
    """(image file, prompt) of the pictures that are `sound`. SlugError if none is."""
    rows = [(paths[i], wanted[i][0]) for i in sound(paths, what)]
    if not rows:
        raise SlugError(f"all pictures of {what} are black; {REMEDY}")
    return rows


def write_pictures(
    diffusion: Diffusion, wanted: Wanted, folder: Path, desc: str | None = None, *, blacken: bool = False
) -> list[Path]:
    """Write one PNG for each (prompt, seed) into `folder`, batch by batch. Returns their paths.

    Existing files are kept, except black ones, which a safety checker or NaN left in an earlier run.

    Args:
        blacken: see Diffusion.generate.
    """
    paths = [folder / f"{i:05d}.png" for i in range(len(wanted))]
    missing = [i for i, p in enumerate(paths) if not p.is_file() or is_black(p)]
    starts = range(0, len(missing), diffusion.batch_size)
    for start in progress.bar(starts, desc=desc, unit="batch", leave=False, shown=desc is not None):
        rows = missing[start : start + diffusion.batch_size]
        images = diffusion.generate([wanted[i][0] for i in rows], [wanted[i][1] for i in rows], blacken=blacken)
        for i, image in zip(rows, images, strict=True):
            with files.replacing(paths[i]) as temporary:
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(temporary, "PNG")
    return paths


def kept_pictures(diffusion: Diffusion, wanted: Wanted, folder: Path, stem: str, state: list) -> list[Path]:
    """`write_pictures` under the present weights into a subfolder of `folder` that later runs find again; NaN as black ones.

    `state` is what the images depend on besides prompts and seeds (base weights and edit): anything JSON can hold.
    """
    mark = hashlib.sha256(json.dumps([*state, wanted]).encode()).hexdigest()[:16]
    return write_pictures(diffusion, wanted, folder / f"{stem}-{mark}", desc=stem, blacken=True)


def read_pictures(paths: Iterable[Path]) -> Tensor:
    """(N, 3, H, W) uint8 of image files of one size."""
    return decode([str(p) for p in paths], transforms.PILToTensor())[0]


def look_at(function: Callable[[Tensor], dict], paths: Sequence[Path]) -> dict[str, Tensor]:
    """images.by_batch of image files of one size, without a transform. SlugError if one of them is damaged."""
    found = by_batch(function, [str(p) for p in paths], transforms.PILToTensor())
    if any(len(rows) != len(paths) for rows in found.values()) or (paths and not found):
        raise SlugError(f"a picture in {paths[0].parent} is damaged; delete that folder and run again")
    return found


def load(
    pipeline: str, clip: Clip | str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **how: Any
) -> Diffusion:
    """The Diffusion of a pipeline id or folder and of the CLIP of its text tower, or its id or folder; `how` goes to
    Diffusion.

    Raises SlugError if the pipeline is missing or damaged, or has another CLIP.
    """
    # Without its checker: what a checker blackens would pass for forgotten.
    unchecked: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
    pipe = pipeline_folders.read(pipeline, "StableDiffusionPipeline", PARTS, device=device, dtype=dtype, **unchecked)
    loaded = clip if isinstance(clip, Clip) else loading.load(clip_model_id=clip, device=device)
    return checked(Diffusion(pipe, loaded, **how), pipeline)


def checked(loaded: Diffusion, pipeline: str) -> Diffusion:
    """A Diffusion that was just loaded. SlugError if a weight of it is not finite."""
    folders.check_finite(loaded.modules, f"the pipeline {pipeline}")
    loaded.origin = str(loading.local_folder(pipeline) or "")
    return loaded


def from_settings(which: settings.Pipeline, precision: str, device: str | torch.device) -> Diffusion:
    """The Diffusion that the settings name; see `load`. `precision` casts the generation, not the weights."""
    clip = loading.load(clip_model_id=which.clip_model_id, device=device)
    how: dict[str, Any] = {"steps": which.denoising_steps, "guidance": which.guidance, "size": which.size}
    how |= {"batch_size": which.generate_batch_size, "autocast": system.PRECISIONS[precision]}
    return load(which.pipeline, clip, device=device, **how)
