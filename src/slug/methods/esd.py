"""ESD: the UNet's cross-attention fine-tuned away from a concept (Gandikota et al., ICCV 2023).

The prediction for a prompt of the concept is trained towards e("") - strength * (e(prompt) - e("")), where e is the original
UNet's prediction, on noised latents of pictures that the pipeline itself makes of the concept.
"""

from slug.errors import SlugError
from slug.methods import PIPELINE, Method, register

STRENGTH = 1.0
BATCH = 16
EVERY = 25  # optimiser steps between two candidates
COUNT = 4  # candidates of a learning rate


def trained(pipeline):
    """Names of the parameters that are trained: those of the UNet's cross-attention."""
    return [n for n in pipeline.tensors if n.startswith("unet.") and ".attn2." in n]


def candidates(pipeline, material, rate):
    """Yield the edit after every EVERY optimiser steps, COUNT times. Raises SlugError if the loss is NaN or infinite.

    Args:
        material: PipelineMaterial.
        rate: learning rate.
    """
    import torch
    import torch.nn.functional as F

    from slug.core.edit import Edit

    unet, own = pipeline.pipe.unet, material.own
    latents = pipeline.latents(own, material.seeds).float()
    states = {p: pipeline.embed([p])[0].clone() for p in ("", *dict.fromkeys(own))}
    schedule = pipeline.training_schedule()
    total = schedule.config.num_train_timesteps
    names = trained(pipeline)
    base = {n: pipeline.tensors[n].detach().clone() for n in names}
    parameters = [pipeline.tensors[n] for n in names]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    g = torch.Generator().manual_seed(material.seed)
    values = {n: b.clone() for n, b in base.items()}  # of the training; outside a step the pipeline keeps its own

    def place(found):
        with torch.no_grad():
            for n, value in found.items():
                pipeline.tensors[n].copy_(value)

    def step():
        """One optimiser step at the weights `values`."""
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
            raise SlugError(f"the loss of ESD is {loss.item()} at learning rate {rate:g}; choose a lower one")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.update({n: pipeline.tensors[n].detach().clone() for n in names})

    for number in range(1, COUNT + 1):
        try:
            for _ in range(EVERY):
                step()
        finally:
            for p in parameters:
                p.requires_grad_(False)
                p.grad = None
            place(base)
        yield Edit({n: values[n] - base[n] for n in names}, f"lr {rate:g}", number * EVERY)


CITED = "ESD (Gandikota et al.; ICCV 2023), the cross-attention fine-tuned"
register(Method("esd", "ESD", CITED, (PIPELINE,), 41, candidates, setting="lr", grid=(1e-4, 3.2e-4, 1e-3)))
