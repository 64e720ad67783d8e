"""Train mini-SD, a diffusers StableDiffusionPipeline on EmojiCanvas, and the style and object classifiers that judge it.

Example: python src/demo/train_sd.py          (an hour on 2 cores; resumes from its checkpoints when run again)

Trains the classifiers, the VAE and the UNet, in this order. The text encoder is mini-CLIP's, frozen; convert_sd.py adds it,
so this script writes only the VAE and the UNet, in fp16. The UNet's training leaves out one cell of every object, its
drawing in one style.
"""

import argparse
import itertools
import json
import os
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before diffusers, timm and transformers)

import diffusers
import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from demo import convert_clip, emoji
from demo.training import Part, generator
from slug import cli, files, progress

STYLES, OBJECTS = emoji.CANVAS_STYLES, emoji.CANVAS_OBJECTS
PROMPT = "An {object} image in {style} style."
CANVAS = emoji.Ranges(turn=5, size=(0.82, 0.98), aspect=0.03, shift=0.03, tint=0.05, mix=0.02, flip=0.0, strong=0.1)
SOURCES = (__file__, emoji.__file__)
STEPS = {"classifiers": 1000, "vae": [2000, 3000], "unet": 6000}  # a list: cycles of the learning rate
RENDERINGS = 64
NOISE_STEPS = 1000
UNCONDITIONAL, NAME_ONLY = 0.1, 0.15  # fractions of the UNet's prompts: empty; only the object's name
# Largest noise on text states, in their standard deviations: training has only 141 prompts, and an edited tower gives states
# that differ from all of them.
TEXT_NOISE = 0.3


class Cells:
    """The 20 x 6 cells of object and style: icons, labels, prompts, and which cell of each object is left out."""

    def __init__(self, seed):
        world = emoji.concepts()
        small = [c for c in world if c.name in OBJECTS]
        place = {(small[p.concept].name, p.set): i for i, p in enumerate(emoji.pictures(small))}
        icons = emoji.icons(small, progress=progress.bar)
        self.pairs = list(itertools.product(range(len(OBJECTS)), range(len(STYLES))))
        self.icons = icons[[place[OBJECTS[o], STYLES[s]] for o, s in self.pairs]]
        self.objects, self.styles = torch.tensor(self.pairs).T
        rng = np.random.default_rng([seed, 6])
        self.left_out = torch.zeros(len(self.pairs), dtype=torch.bool)
        for o in range(len(OBJECTS)):
            self.left_out[o * len(STYLES) + int(rng.integers(len(STYLES)))] = True

    def render(self, rows, g):
        """New renderings of cells, (n, 3, 64, 64) in [-1, 1]."""
        return emoji.render(self.icons[rows], g, CANVAS) * 2 - 1

    def prompt(self, row):
        """The protocol's prompt of a cell."""
        o, s = self.pairs[row]
        return PROMPT.format(object=OBJECTS[o], style=emoji.STYLES[STYLES[s]])


# -------------------------------------------------------------------------------------------------------------- models


CLASSIFIER = {"arch": "resnet10t", "options": {"channels": [32, 64, 96, 128], "stem_width": 16}}


def make_classifier(classes):
    """A small timm ResNet for pictures of 64 px."""
    return timm.create_model(CLASSIFIER["arch"], num_classes=classes, **CLASSIFIER["options"])


def make_vae():
    """An autoencoder from 64 px to latents (8, 8, 8)."""
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 64, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=emoji.SIZE,
    )


def make_unet(width):
    """A conditional UNet on latents (8, 8, 8); `width` is that of the text encoder."""
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(48, 96),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=4,  # number of heads, despite its name in diffusers
        norm_num_groups=8,
    )


def noise_scheduler():
    """The noise schedule of training, from which the pipeline samples with DPM-Solver."""
    settings = {"num_train_timesteps": NOISE_STEPS, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    return diffusers.DDPMScheduler(**settings)


# ------------------------------------------------------------------------------------------------------------ training


def train_classifiers(cells, args, steps):
    """Train the style and the object classifier on renderings with some blur and noise, as a VAE produces them."""
    networks = {"style": make_classifier(len(STYLES)), "object": make_classifier(len(OBJECTS))}
    labels = {"style": cells.styles, "object": cells.objects}

    def loss_of(step):
        g = generator(args.seed, 1, step)
        rows = torch.randint(len(cells.pairs), (64,), generator=g)
        x = cells.render(rows, g)
        blurred = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
        share = torch.rand(len(x), 1, 1, 1, generator=g)
        x = x * share + blurred * (1 - share) + 0.05 * torch.randn(x.shape, generator=g)
        return sum(F.cross_entropy(m(x), labels[n][rows], label_smoothing=0.05) for n, m in networks.items())

    part = Part("classifiers", networks, 2e-3, steps, args.checkpoint, SOURCES)
    for network in networks.values():
        network.train()
    found = part.run(loss_of)
    # Averaged weights need their own batch-norm statistics.
    for n, network in found.items():
        network.train()
        with torch.no_grad():
            for step in range(20):
                network(cells.render(torch.randint(len(cells.pairs), (64,)), generator(args.seed, 2, step)))
        found[n] = network.eval()
    return found, part.spent


def train_vae(cells, args, steps):
    """Train the autoencoder on the absolute error of pixels, that of differences between neighbours, and a little KL."""
    vae = make_vae()

    def slopes(x):
        return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]

    def loss_of(step):
        g = generator(args.seed, 3, step)
        x = cells.render(torch.randint(len(cells.pairs), (24,), generator=g), g)
        with torch.autocast("cpu", torch.bfloat16):  # 1.6 times as fast here, but slower on the UNet's small maps
            latent = vae.encode(x).latent_dist
            z = latent.mean + latent.std * torch.randn(latent.mean.shape, generator=g)
            y = vae.decode(z).sample.float()
        edges = sum((a - b).abs().mean() for a, b in zip(slopes(x), slopes(y), strict=True))
        return (x - y).abs().mean() + edges + 1e-6 * latent.kl().float().mean()

    vae.train()
    part = Part("vae", {"vae": vae}, 1e-3, steps, args.checkpoint, SOURCES)
    return part.run(loss_of)["vae"], part.spent


@torch.no_grad()
def text_states(encoder, tokenizer, prompts):
    """Last hidden states (N, L, W) of prompts, as the pipeline uses them."""
    ids = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    return torch.cat([encoder(part)[0] for part in ids.input_ids.split(64)])


def train_unet(cells, vae, args, steps):
    """Train the denoiser (v-prediction) on latents of renderings of every cell that is not left out."""
    folder = args.checkpoint / "mini-clip-hf"
    convert_clip.convert(files.resolve("data/models/mini-clip"), folder)
    tokenizer, encoder = CLIPTokenizer.from_pretrained(folder), CLIPTextModel.from_pretrained(folder).eval()
    rows = torch.nonzero(~cells.left_out).flatten().repeat_interleave(args.renderings)
    with torch.no_grad():
        parts = []
        for i, part in enumerate(progress.bar(rows.split(128), desc="latents")):
            parts.append(vae.encode(cells.render(part, generator(args.seed, 4, i))).latent_dist.mean)
        latents = torch.cat(parts)
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    latents = latents * vae.config.scaling_factor
    prompts = ["", *OBJECTS, *(cells.prompt(i) for i in range(len(cells.pairs)))]
    states = text_states(encoder, tokenizer, prompts)
    spread = states.std()
    unet, scheduler = make_unet(states.shape[-1]), noise_scheduler()

    def loss_of(step):
        g = generator(args.seed, 5, step)
        chosen = torch.randint(len(rows), (64,), generator=g)
        cell = rows[chosen]
        chance = torch.rand(len(cell), generator=g)
        text = torch.where(chance < UNCONDITIONAL + NAME_ONLY, 1 + cells.objects[cell], 1 + len(OBJECTS) + cell)
        text = torch.where(chance < UNCONDITIONAL, 0, text)
        level = TEXT_NOISE * spread * torch.rand(len(cell), 1, 1, generator=g)
        seen = states[text] + level * torch.randn(states[text].shape, generator=g)
        x, noise = latents[chosen], torch.randn(len(cell), *latents.shape[1:], generator=g)
        t = torch.randint(NOISE_STEPS, (len(cell),), generator=g)
        guess = unet(scheduler.add_noise(x, noise, t), t, seen).sample
        return F.mse_loss(guess, scheduler.get_velocity(x, noise, t))

    unet.train()
    part = Part("unet", {"unet": unet}, 1e-3, steps, args.checkpoint, SOURCES, settings=[args.renderings])
    return part.run(loss_of)["unet"], part.spent


def write(vae, unet, classifiers, cells, args, record):
    """Write the folders data/models/mini-sd (without text encoder) and data/models/uncanvas."""
    out = args.out / "mini-sd"
    for name, module in (("vae", vae), ("unet", unet)):
        module.half().save_pretrained(out / name)
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(noise_scheduler().config)
    scheduler.save_pretrained(out / "scheduler")
    left_out = [cells.prompt(i) for i in torch.nonzero(cells.left_out).flatten().tolist()]
    record |= {"styles": STYLES, "objects": OBJECTS, "left_out": left_out}
    files.write_json(out / "training.json", record)
    for name, network in classifiers.items():
        state = {n: t.half() if t.is_floating_point() else t for n, t in network.state_dict().items()}
        path = args.out / "uncanvas" / f"{name}.safetensors"
        with files.replacing(path) as temporary:
            save_file({n: t.contiguous() for n, t in state.items()}, temporary)
    labels = {"style": [emoji.STYLES[s] for s in STYLES], "object": list(OBJECTS)}
    settings = CLASSIFIER | {"labels": labels, "mean": [0.5] * 3, "std": [0.5] * 3, "size": emoji.SIZE}
    files.write_json(args.out / "uncanvas" / "classifiers.json", settings)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=json.loads, default=STEPS, help="training steps of each part, as JSON")
    parser.add_argument(
        "--renderings",
        type=cli.within(cli.Count),
        default=RENDERINGS,
        help="renderings of each cell, encoded once for the UNet",
    )
    parser.add_argument("--seed", type=cli.within(cli.Seed), default=0)
    parser.add_argument("--out", type=Path, default="data/models", help="folder to write")
    parser.add_argument("--checkpoint", type=Path, default="results/train/mini-sd", help="folder of the checkpoints")
    args = parser.parse_args(argv)
    args.out, args.checkpoint = files.resolve(args.out), files.resolve(args.checkpoint)
    torch.manual_seed(args.seed)
    cells = Cells(args.seed)
    spent = {}
    classifiers, spent["classifiers"] = train_classifiers(cells, args, args.steps["classifiers"])
    with torch.no_grad():
        x = cells.render(torch.arange(len(cells.pairs)).repeat(8), generator(args.seed, 7, 0))
        for n, labels in (("style", cells.styles), ("object", cells.objects)):
            right = (classifiers[n](x).argmax(1) == labels.repeat(8)).float().mean().item()
            print(f"{n} classifier on {len(x)} new renderings: {right:.1%}")
    vae, spent["vae"] = train_vae(cells, args, args.steps["vae"])
    unet, spent["unet"] = train_unet(cells, vae, args, args.steps["unet"])
    record = {
        "command": f"python src/demo/train_sd.py --seed {args.seed}",
        "steps": args.steps,
        "renderings": args.renderings,
        "minutes": {n: round(s / 60, 1) for n, s in spent.items()},
        "parameters": {n: sum(p.numel() for p in m.parameters()) for n, m in (("vae", vae), ("unet", unet))},
        "threads": torch.get_num_threads(),
        "source": "drawings of data/emoji/ (see NOTICE)",
        "licence": "CC-BY-SA-4.0, as the share-alike icon sets in it ask",
        "versions": cli.versions() | {"diffusers": diffusers.__version__},
    }
    write(vae, unet, classifiers, cells, args, record)
    print(json.dumps(record["parameters"]), f"-> {args.out}/mini-sd", os.linesep, sep=" ")


if __name__ == "__main__":
    cli.exit_with(main)
