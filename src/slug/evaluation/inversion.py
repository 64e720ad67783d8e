"""Optimised prompt tokens (textual inversion, Gal et al., ICLR 2023): is what no name calls any more still drawn?

The embedding of the token "*" is trained so that prompts with it draw given pictures; every weight stays as it is.
"""

import contextlib

import torch
import torch.nn.functional as F

from slug.data.names import plain_name
from slug.errors import SlugError

TOKEN = "*"
BATCH = 8


def prompt_with(request, kind):
    """The prompt of a canvas.Request with TOKEN in place of its style or object."""
    return request._replace(**{kind: TOKEN}).prompt


def _place(pipe):
    """(embedding module, id of TOKEN). SlugError if the tokenizer splits it."""
    ids = pipe.tokenizer(TOKEN, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise SlugError(f"the pipeline's tokenizer makes {len(ids)} tokens of {TOKEN!r}; it has to be one")
    return pipe.text_encoder.get_input_embeddings(), ids[0]


@contextlib.contextmanager
def spoken(diffusion, vector):
    """Context within which TOKEN has the embedding `vector`, (W,)."""
    module, token = _place(diffusion.pipe)

    def replace(_, args, out):
        return torch.where((args[0] == token)[..., None], vector.to(out.dtype), out)

    hook, outer = module.register_forward_hook(replace), diffusion.embeddings
    diffusion.embeddings = {}
    try:
        yield
    finally:
        hook.remove()
        diffusion.embeddings = outer


def states(diffusion, prompts):
    """Last hidden states (N, L, W) of prompts, with gradients."""
    pipe = diffusion.pipe
    ids = pipe.tokenizer(
        prompts, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return pipe.text_encoder(ids.to(pipe.device)).last_hidden_state


def learn(diffusion, prompts, latents, *, start, steps=200, rate=0.01, seed=0):
    """The embedding of TOKEN, (W,), by which the pipeline's present weights draw pictures best.

    Args:
        prompts: N texts with TOKEN in them.
        latents: (N, C, H, W), what they are to draw; see Diffusion.latents.
        start: word whose embedding it starts from: the mean of its tokens.
        steps: of AdamW with `rate`, BATCH pictures each.
    Raises:
        SlugError: the loss is NaN or infinite.
    """
    pipe = diffusion.pipe
    module, _ = _place(pipe)
    schedule = diffusion.training_schedule()
    kind = schedule.config.prediction_type
    ids = pipe.tokenizer(plain_name(start), add_special_tokens=False).input_ids
    vector = module.weight[ids].detach().float().mean(0).clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=rate, weight_decay=0.0)
    g = torch.Generator().manual_seed(seed)
    with spoken(diffusion, vector), torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(prompts), (BATCH,), generator=g)
            t = torch.randint(schedule.config.num_train_timesteps, (BATCH,), generator=g)
            clean, noise = latents[rows].float(), torch.randn(BATCH, *latents.shape[1:], generator=g)
            x = schedule.add_noise(clean, noise, t)
            target = schedule.get_velocity(clean, noise, t) if kind == "v_prediction" else noise
            text = states(diffusion, [prompts[i] for i in rows.tolist()])
            x, t, target = (a.to(pipe.device) for a in (x.to(text.dtype), t, target))
            loss = F.mse_loss(pipe.unet(x, t, text).sample.float(), target)
            if not torch.isfinite(loss):
                raise SlugError(f"the loss is {loss.item()} at rate {rate:g}; take a lower one")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return vector.detach()
