"""Optimised prompt tokens (textual inversion, Gal et al., ICLR 2023): can a pipeline still draw what no name asks for?

The embedding of the token "*" is trained until prompts with it draw given pictures; all weights stay as they are.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.canvas_prompts import Request
from slug.models.diffusion import Diffusion

TOKEN = "*"
BATCH = 8


def prompt_with(request: Request, kind: str) -> str:
    """The prompt of a Request with TOKEN instead of its style or its object."""
    return (request._replace(style=TOKEN) if kind == "style" else request._replace(object=TOKEN)).prompt


def _place(pipe: Any) -> tuple[torch.nn.Embedding, int]:
    """(embedding module, id of TOKEN). SlugError if the tokenizer splits it."""
    ids = pipe.tokenizer(TOKEN, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise SlugError(
            f"the pipeline's tokenizer makes {len(ids)} tokens of {TOKEN!r} instead of one; take another pipeline"
        )
    return pipe.text_encoder.get_input_embeddings(), ids[0]


@contextlib.contextmanager
def spoken(diffusion: Diffusion, vector: torch.Tensor) -> Iterator[None]:
    """Context within which TOKEN has the embedding `vector`, (W,)."""
    module, token = _place(diffusion.pipe)

    def replace(_: Any, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        return torch.where((inputs[0] == token)[..., None], vector.to(out.dtype), out)

    hook = module.register_forward_hook(replace)
    try:
        with diffusion.separate_embeddings():
            yield
    finally:
        hook.remove()


def states(diffusion: Diffusion, prompts: Sequence[str]) -> torch.Tensor:
    """Last hidden states (N, L, W) of prompts, with gradients."""
    pipe = diffusion.pipe
    ids = pipe.tokenizer(
        prompts, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return pipe.text_encoder(ids.to(pipe.device)).last_hidden_state


def denoising_loss(
    diffusion: Diffusion, prompts: Sequence[str], latents: torch.Tensor, schedule: Any, g: torch.Generator
) -> torch.Tensor:
    """The UNet's mean squared error on BATCH noised latents, drawn by `g`, of N prompts' pictures, with gradients.

    Args:
        latents: (N, C, H, W) of the pictures; see Diffusion.latents.
        schedule: Diffusion.training_schedule.
    """
    pipe, kind = diffusion.pipe, schedule.config.prediction_type
    rows = torch.randint(len(prompts), (BATCH,), generator=g)
    t = torch.randint(schedule.config.num_train_timesteps, (BATCH,), generator=g)
    clean, noise = latents[rows].float(), torch.randn(BATCH, *latents.shape[1:], generator=g)
    x = schedule.add_noise(clean, noise, t)
    target = schedule.get_velocity(clean, noise, t) if kind == "v_prediction" else noise
    text = states(diffusion, [prompts[i] for i in rows.tolist()])
    x, t, target = (a.to(pipe.device) for a in (x.to(text.dtype), t, target))
    return F.mse_loss(pipe.unet(x, t, text).sample.float(), target)


def learn(
    diffusion: Diffusion,
    prompts: Sequence[str],
    latents: torch.Tensor,
    *,
    start: str,
    steps: int = 200,
    rate: float = 0.01,
    seed: int = 0,
) -> torch.Tensor:
    """The embedding (W,) of TOKEN by which the pipeline's present weights draw pictures best.

    Args:
        prompts: N texts with TOKEN in them.
        latents: (N, C, H, W) of the pictures to draw; see Diffusion.latents.
        start: word whose embedding, the mean of its tokens, the training starts from.
        steps: of AdamW with learning rate `rate`, BATCH pictures each.
    Raises:
        SlugError: the loss is NaN or infinite.
    """
    pipe = diffusion.pipe
    module, _ = _place(pipe)
    schedule = diffusion.training_schedule()
    ids = pipe.tokenizer(plain_name(start), add_special_tokens=False).input_ids
    vector = module.weight[ids].detach().float().mean(0).clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=rate, weight_decay=0.0)
    g = torch.Generator().manual_seed(seed)
    with spoken(diffusion, vector), torch.enable_grad():
        for _ in range(steps):
            loss = denoising_loss(diffusion, prompts, latents, schedule, g)
            if not torch.isfinite(loss):
                raise SlugError(f"the loss of a token is {loss.item()} at learning rate {rate:g}; give a lower --rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return vector.detach()
