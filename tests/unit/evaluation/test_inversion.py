"""Optimised prompt tokens."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from slug.errors import SlugError
from slug.evaluation import inversion
from slug.evaluation.canvas_prompts import Request


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


@pytest.fixture(scope="module")
def latents(pipeline):
    return pipeline.latents(["a bell"] * 4, [0, 1, 2, 3])


def learn(pipeline, latents, **how):
    return inversion.learn(pipeline, ["a *"] * 4, latents, start="key", **how)


@pytest.mark.parametrize(
    ("kind", "prompt"), [("style", "An key image in * style."), ("object", "An * image in Noto style.")]
)
def test_the_token_takes_the_concepts_place(kind, prompt):
    assert inversion.prompt_with(Request("test", "Noto", "key", 0), kind) == prompt


def test_the_token_starts_from_a_words_embedding(pipeline, latents):
    weight = pipeline.pipe.text_encoder.get_input_embeddings().weight
    ids = pipeline.pipe.tokenizer("key", add_special_tokens=False).input_ids
    start = learn(pipeline, latents, steps=0)
    assert torch.allclose(start, weight[ids].mean(0)) and not start.requires_grad


def test_a_spoken_token_changes_its_own_prompts_alone_and_only_within_the_context(pipeline):
    plain, other = pipeline.embed(["a *"]), pipeline.embed(["a key"])
    with inversion.spoken(pipeline, torch.ones(plain.shape[-1])):
        assert not torch.allclose(pipeline.embed(["a *"]), plain) and torch.equal(pipeline.embed(["a key"]), other)
    assert torch.equal(pipeline.embed(["a *"]), plain)


def test_a_token_learns_to_draw_what_it_is_shown(pipeline, latents):
    schedule, losses = pipeline.training_schedule(), []
    for steps in (0, 60):
        vector, g, total = learn(pipeline, latents, steps=steps, rate=0.05), torch.Generator().manual_seed(1), 0.0
        with inversion.spoken(pipeline, vector), torch.no_grad():
            text = inversion.states(pipeline, ["a *"] * 4)
            for t in range(50, 1000, 100):
                noise = torch.randn(latents.shape, generator=g)
                x = schedule.add_noise(latents.float(), noise, torch.full((4,), t))
                target = schedule.get_velocity(latents.float(), noise, torch.full((4,), t))
                total += F.mse_loss(pipeline.pipe.unet(x, torch.full((4,), t), text).sample, target).item()
        losses.append(total)
    assert losses[1] < losses[0]


def test_learning_leaves_the_weights_alone(pipeline, latents):
    before = {n: p.detach().clone() for n, p in pipeline.tensors.items()}
    learn(pipeline, latents, steps=2)
    assert tiny.same_tensors(before, {n: p.detach() for n, p in pipeline.tensors.items()})


def test_a_loss_that_is_no_number_is_said(pipeline, latents):
    with pytest.raises(SlugError, match="give a lower --rate"):
        learn(pipeline, latents * torch.nan, steps=1)
