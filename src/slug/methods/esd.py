"""ESD: the UNet's cross-attention fine-tuned away from a concept (Gandikota et al., ICCV 2023).

The guess at a prompt of the concept is trained towards guess("") - strength * (guess(prompt) - guess("")), both of the
original UNet, on noised latents of pictures that the pipeline itself makes of the concept.
"""

import torch
import torch.nn.functional as F

from slug.errors import SlugError
from slug.models.diffusion import UNET

STRENGTH = 1.0
BATCH = 16
EVERY = 25  # optimiser steps between two candidates


def trained(diffusion):
    """Names of the parameters that are trained: of the UNet's cross-attention."""
    return [n for n in diffusion.tensors if n.startswith(UNET) and ".attn2." in n]


def candidates(diffusion, own, seeds, rate, count, seed=0):
    """Yield (label, number of steps, edit) every EVERY steps, `count` times.

    Args:
        own, seeds: N prompts of the concept, and the seeds of the pictures that are made of them.
        rate: learning rate.
    Raises:
        SlugError: the loss is NaN or infinite.
    """
    unet = diffusion.pipe.unet
    latents = diffusion.latents(own, seeds).float()
    states = {p: diffusion.embed([p])[0].clone() for p in ("", *dict.fromkeys(own))}
    schedule = diffusion.training_schedule()
    total = schedule.config.num_train_timesteps
    names = trained(diffusion)
    base = {n: diffusion.tensors[n].detach().clone() for n in names}
    parameters = [diffusion.tensors[n] for n in names]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    g = torch.Generator().manual_seed(seed)
    values = {n: b.clone() for n, b in base.items()}  # of the training; outside a step the pipeline keeps its own

    def place(found):
        with torch.no_grad():
            for n, value in found.items():
                diffusion.tensors[n].copy_(value)

    for number in range(1, count + 1):
        try:
            for _ in range(EVERY):
                rows = torch.randint(len(own), (BATCH,), generator=g)
                t = torch.randint(total, (BATCH,), generator=g)
                noise = torch.randn(BATCH, *latents.shape[1:], generator=g)
                x = schedule.add_noise(latents[rows], noise, t).to(unet.device, unet.dtype)
                t = t.to(unet.device)
                text = torch.stack([states[own[i]] for i in rows.tolist()])
                empty = states[""].expand_as(text)
                place(base)
                with torch.no_grad():
                    nothing, concept = unet(x, t, empty).sample, unet(x, t, text).sample
                    target = nothing - STRENGTH * (concept - nothing)
                place(values)
                for p in parameters:
                    p.requires_grad_(True)
                loss = F.mse_loss(unet(x, t, text).sample, target)
                if not torch.isfinite(loss):
                    raise SlugError(f"the loss is {loss.item()} in training at rate {rate:g}; take a lower one")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                values = {n: diffusion.tensors[n].detach().clone() for n in names}
        finally:
            for p in parameters:
                p.requires_grad_(False)
                p.grad = None
            place(base)
        yield f"lr {rate:g}", number * EVERY, {n: values[n] - base[n] for n in names}
