"""ESD: the UNet's cross-attention fine-tuned away from a concept (Gandikota et al., ICCV 2023).

The prediction for a prompt of the concept is trained towards e("") - strength * (e(prompt) - e("")), where e is the original
UNet's prediction, on noised latents of pictures that the pipeline itself makes of the concept.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slug.errors import SlugError
from slug.methods import PIPELINE, Method, PipelineMaterial, register

if TYPE_CHECKING:
    import torch

    from slug.core.edit import Edit

STRENGTH = 1.0
BATCH = 16
EVERY = 25  # optimiser steps between two candidates
COUNT = 4  # candidates of a learning rate


def trained(pipeline: Any) -> list[str]:
    """Names of the parameters that are trained: those of the UNet's cross-attention."""
    return [n for n in pipeline.tensors if n.startswith("unet.") and ".attn2." in n]


def batches(pipeline: Any, material: PipelineMaterial) -> "Iterator[tuple[torch.Tensor, ...]]":
    """Yield (noised latents, timesteps, text states, states of the empty text) without end, BATCH rows of the concept's
    pictures each."""
    import torch

    unet, own = pipeline.pipe.unet, material.own
    latents = pipeline.latents(own, material.seeds).float()
    states = {p: pipeline.embed([p])[0].clone() for p in ("", *dict.fromkeys(own))}
    schedule = pipeline.training_schedule()
    g = torch.Generator().manual_seed(material.seed)
    while True:
        rows = torch.randint(len(own), (BATCH,), generator=g)
        t = torch.randint(schedule.config.num_train_timesteps, (BATCH,), generator=g)
        noise = torch.randn(BATCH, *latents.shape[1:], generator=g)
        x = schedule.add_noise(latents[rows], noise, t).to(unet.device, unet.dtype)
        text = torch.stack([states[own[i]] for i in rows.tolist()])
        yield x, t.to(unet.device), text, states[""].expand_as(text)


def candidates(pipeline: Any, material: PipelineMaterial, rate: float) -> "Iterator[Edit]":
    """Yield the edit after every EVERY optimiser steps, COUNT times. SlugError if the loss is NaN or infinite.

    Args:
        pipeline: models.diffusion.Diffusion; outside a step it keeps its own weights.
        rate: learning rate.
    """
    import torch
    import torch.nn.functional as F

    from slug.core.edit import Edit

    unet, names = pipeline.pipe.unet, trained(pipeline)
    base = {n: pipeline.tensors[n].detach().clone() for n in names}
    values = {n: b.clone() for n, b in base.items()}  # of the training
    parameters = [pipeline.tensors[n] for n in names]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    drawn = batches(pipeline, material)

    def place(found: "dict[str, torch.Tensor]") -> None:
        with torch.no_grad():
            for n, value in found.items():
                pipeline.tensors[n].copy_(value)

    def train(x: "torch.Tensor", t: "torch.Tensor", text: "torch.Tensor", empty: "torch.Tensor") -> None:
        place(base)
        with torch.no_grad():
            nothing, concept = unet(x, t, empty).sample, unet(x, t, text).sample
            target = nothing - STRENGTH * (concept - nothing)
        place(values)
        for p in parameters:
            p.requires_grad_(True)
        loss = F.mse_loss(unet(x, t, text).sample, target)
        if not torch.isfinite(loss):
            raise SlugError(f"the loss of ESD is {loss.item()} at learning rate {rate:g}; choose a lower one")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.update({n: pipeline.tensors[n].detach().clone() for n in names})

    for number in range(1, COUNT + 1):
        try:
            for _ in range(EVERY):
                train(*next(drawn))
        finally:
            for p in parameters:
                p.requires_grad_(False)
                p.grad = None
            place(base)
        yield Edit({n: values[n] - base[n] for n in names}, f"lr {rate:g}", float(number * EVERY))


CITED = "ESD (Gandikota et al.; ICCV 2023), the cross-attention fine-tuned"
register(Method("esd", "ESD", CITED, (PIPELINE,), 41, candidates, setting="lr", grid=(1e-4, 3.2e-4, 1e-3)))
