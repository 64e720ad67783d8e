"""Stable Diffusion behind a small interface: pictures from prompts and seeds, and the text tower that SLUG edits.

SLUG edits the text tower (see Carrier); peers edit the UNet.
"""

import contextlib
import hashlib
import json

import slug.torchvision_cpu  # noqa: F401  (before diffusers)

import torch
from PIL import Image
from torchvision import transforms
from tqdm import tqdm

from slug import files, models, system
from slug.data.images import by_batch, decode
from slug.errors import SlugError, brief
from slug.models.canonical import TEXT
from slug.models.host import Carrier

UNET = "unet."  # before the name of a UNet's parameter in an edit


class Diffusion(Carrier):
    """A StableDiffusionPipeline with the CLIP of its text tower. Names of the UNet's parameters begin with UNET.

    Attributes:
        pipe: the pipeline.
    """

    encoder, prefix = "language", TEXT

    def __init__(self, pipe, clip, *, steps, guidance, size=None, batch_size=16, autocast=None):
        """
        Args:
            steps: denoising steps.
            guidance: classifier-free guidance scale; up to 1 there is none.
            size: side of the pictures in pixels; None takes the pipeline's own.
            autocast: dtype that pictures are made in, of weights that stay as they are; None: theirs.
        Raises:
            SlugError: the CLIP is not that of the pipeline's text tower.
        """
        super().__init__(clip)
        self.pipe = pipe
        self.steps, self.guidance, self.batch_size, self.autocast = steps, guidance, batch_size, autocast
        self.size = size or pipe.unet.config.sample_size * pipe.vae_scale_factor
        self.embeddings = {}  # of prompts under the present weights
        pipe.set_progress_bar_config(disable=True)
        for module in self.modules.values():
            module.requires_grad_(False)  # who trains something asks for its gradients
        # Only tensors that the pipeline reads: it has no text projection, and SD 2.1 has no last block.
        text = self.tower(pipe.text_encoder, "pipeline's text tower")
        self.tensors = text | {UNET + n: p for n, p in pipe.unet.named_parameters()}

    @property
    def tag(self):
        """Name of the pipeline for file names: its folder's, or its id."""
        return files.safe_name(str(self.pipe.name_or_path).rstrip("/").rsplit("/", 1)[-1])

    @property
    def modules(self):
        """See Carrier."""
        return {k: getattr(self.pipe, k) for k in ("text_encoder", "unet", "vae")}

    def hash(self):
        """Hash of all weights and of how pictures are made: what a record depends on."""
        scheduler, more = self.pipe.scheduler, () if self.autocast is None else (str(self.autocast),)
        how = (*more, self.steps, self.guidance, self.size, type(scheduler).__name__, sorted(scheduler.config.items()))
        return hashlib.sha256(f"{self.weights_hash()}{how}".encode()).hexdigest()

    def training_schedule(self):
        """DDPMScheduler of the pipeline's noise levels, whose add_noise trains. Samplers' own is not for that: DPM-Solver's,
        before set_timesteps, takes timestep t for the last but t."""
        from diffusers import DDPMScheduler

        return DDPMScheduler.from_config(self.pipe.scheduler.config)

    @contextlib.contextmanager
    def applied(self, edit):
        """See Carrier."""
        outer = self.embeddings
        if any(not n.startswith(UNET) for n in edit):  # else the texts stay what they are
            self.embeddings = {}
        try:
            with super().applied(edit):
                yield
        finally:
            self.embeddings = outer

    @contextlib.contextmanager
    def with_lora(self, folder):
        """Context within which the pipeline carries an adapter (see slug.lora); diffusers loads and unloads it."""
        outer, self.embeddings = self.embeddings, {}
        self.pipe.load_lora_weights(folder)
        try:
            yield
        finally:
            self.pipe.unload_lora_weights()
            self.embeddings = outer

    def embed(self, prompts):
        """Last hidden states (N, L, W) of prompts; one that was seen under the present weights is not computed again."""
        missing = [p for p in dict.fromkeys(prompts) if p not in self.embeddings]
        for i in range(0, len(missing), 64):
            part = missing[i : i + 64]
            states, _ = self.pipe.encode_prompt(part, self.pipe.device, 1, do_classifier_free_guidance=False)
            self.embeddings.update(zip(part, states, strict=True))
        return torch.stack([self.embeddings[p] for p in prompts])

    def generate(self, prompts, seeds, desc=None):
        """One picture a prompt and seed, (N, 3, size, size) uint8 on the CPU. A picture depends on its own seed alone.

        Args:
            prompts: N texts.
            seeds: N whole numbers.
        """
        images = self._run(prompts, seeds, "pt", desc)
        return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)

    def latents(self, prompts, seeds, desc=None):
        """As `generate`, before the decoder: (N, C, H, W) as the UNet knows them, on the CPU."""
        return self._run(prompts, seeds, "latent", desc)

    @torch.no_grad()
    def _run(self, prompts, seeds, kind, desc):
        channels, side = self.pipe.unet.config.in_channels, self.size // self.pipe.vae_scale_factor
        out = []
        starts = range(0, len(prompts), self.batch_size)
        for i in tqdm(starts, desc=desc, unit="batch", leave=False, disable=desc is None):
            part = slice(i, i + self.batch_size)
            text = self.embed(prompts[part])
            noise = [torch.randn(channels, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds[part]]
            empty = self.embed([""]).expand(len(text), -1, -1) if self.guidance > 1 else None
            with torch.autocast(self.pipe.device.type, self.autocast, enabled=self.autocast is not None):
                images = self.pipe(
                    prompt_embeds=text,
                    negative_prompt_embeds=empty,
                    latents=torch.stack(noise).to(self.pipe.device, text.dtype),
                    height=self.size,
                    width=self.size,
                    num_inference_steps=self.steps,
                    guidance_scale=self.guidance,
                    output_type=kind,
                ).images
            out.append(images.cpu())
        return torch.cat(out)


def write_pictures(diffusion, wanted, folder, desc=None):
    """Write a PNG a (prompt, seed) into `folder`, batch by batch; those that are there are kept. Returns their paths."""
    paths = [folder / f"{i:05d}.png" for i in range(len(wanted))]
    missing = [i for i, p in enumerate(paths) if not p.is_file()]
    starts = range(0, len(missing), diffusion.batch_size)
    for start in tqdm(starts, desc=desc, unit="batch", leave=False, disable=desc is None):
        rows = missing[start : start + diffusion.batch_size]
        images = diffusion.generate([wanted[i][0] for i in rows], [wanted[i][1] for i in rows])
        for i, image in zip(rows, images, strict=True):
            with files.replacing(paths[i]) as temporary:
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(temporary, "PNG")
    return paths


def kept_pictures(diffusion, wanted, folder, stem, state):
    """Paths of the pictures of N (prompt, seed)s under the present weights, kept as files below `folder`.

    Args:
        stem: what the pipeline is called, for people.
        state: what the pictures depend on besides prompts and seeds, anything JSON can hold: base weights and edit.
    """
    mark = hashlib.sha256(json.dumps([*state, wanted]).encode()).hexdigest()[:16]
    return write_pictures(diffusion, wanted, folder / f"{stem}-{mark}", desc=stem)


def read_pictures(paths):
    """(N, 3, H, W) uint8 of picture files of one size."""
    return decode([str(p) for p in paths], transforms.PILToTensor())[0]


def look_at(function, paths):
    """data.by_batch of picture files of one size, without transform. SlugError if one of them is damaged."""
    found = by_batch(function, [str(p) for p in paths], transforms.PILToTensor())
    if any(len(rows) != len(paths) for rows in found.values()) or (paths and not found):
        raise SlugError(f"a picture in {paths[0].parent} is damaged; delete that folder and run again")
    return found


def load(pipeline, clip, *, device="cpu", dtype=torch.float32, **settings):
    """The Diffusion of a pipeline id or folder.

    Args:
        clip: models.Clip of its text tower.
        settings: see Diffusion.
    Raises:
        SlugError: the pipeline is missing or damaged, or the CLIP is not its own.
    """
    from diffusers import StableDiffusionPipeline

    local = files.resolve(pipeline)
    source = str(local) if local.is_dir() else pipeline
    try:
        pipe = StableDiffusionPipeline.from_pretrained(source, dtype=dtype, use_safetensors=True)
    except Exception as err:  # diffusers, safetensors and the hub raise many kinds; each is a bad or absent folder
        raise SlugError(f"cannot load the pipeline {pipeline}: {brief(err)}") from err
    return Diffusion(pipe.to(device), clip, **settings)


def add_flags(parser):
    """The flags that say which pipeline is meant and how it makes pictures."""
    parser.add_argument("--pipeline", default="sd-legacy/stable-diffusion-v1-5", help="diffusers id or folder")
    parser.add_argument("--clip-model-id", default="openai/clip-vit-large-patch14", help="the CLIP of its text tower")
    parser.add_argument("--denoising-steps", type=int, default=100, help="of the pipeline's own scheduler")
    parser.add_argument("--guidance", type=float, default=9.0, help="classifier-free guidance scale")
    parser.add_argument("--size", type=int, default=0, help="side of the pictures in pixels; 0: the pipeline's own")
    parser.add_argument("--generate-batch-size", type=int, default=16, help="pictures made at once")


def from_args(args, device):
    """`load` with the flags of `add_flags`."""
    clip = models.load(clip_model_id=args.clip_model_id, device=device)
    return load(
        args.pipeline,
        clip,
        device=device,
        autocast=system.PRECISIONS[args.precision],
        steps=args.denoising_steps,
        guidance=args.guidance,
        size=args.size,
        batch_size=args.generate_batch_size,
    )
