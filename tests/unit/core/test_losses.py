"""The two losses, their signs, and which of them a variant takes."""

import math

import plain
import pytest
import tiny
import torch

from slug.core import gradients, layers, losses, variants
from slug.core.edit import Edit

SCALE = torch.tensor(1.0)


def test_the_forget_loss_is_the_mean_of_one_minus_cosine():
    image, text = torch.eye(3), torch.eye(3)[[0, 2, 1]]
    assert losses.cosine_embedding(image, text, SCALE).item() == pytest.approx(2 / 3)


def test_the_retain_loss_of_equal_features_is_that_of_a_guess():
    same = torch.ones(4, 1)
    assert losses.contrastive(same, same, SCALE).item() == pytest.approx(math.log(4))


def test_both_losses_fall_when_pairs_agree_more():
    text, other = torch.eye(3), torch.eye(3).roll(1, 0)
    assert losses.cosine_embedding(text, text) < losses.cosine_embedding(other, text)
    assert losses.contrastive(text, text, SCALE) < losses.contrastive(other, text, SCALE)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("slug", losses.cosine_embedding),
        ("slug_w", losses.cosine_embedding),
        ("slug_ws", losses.cosine_embedding),
        ("slug_o", losses.contrastive),
        ("calc_importance", losses.cosine_embedding),
        ("calc_importance_o", losses.contrastive),
    ],
)
def test_the_forget_loss_of_a_variant(name, loss):
    assert losses.forget(variants.get(name)) is loss


@pytest.fixture
def cosine(clip):
    """() -> mean cosine of six pairs under the model's present weights."""

    def now():
        image, text = tiny.features(clip, tiny.pairs(6))
        return (image * text).sum(1).double().mean().item()

    return now


@pytest.fixture
def forget(clip):
    """The forget gradient of these pairs."""
    return gradients.compute(clip, tiny.pairs(6), losses.cosine_embedding, batch_size=4)[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_positive_step_lowers_the_forget_pairs_cosine_and_a_negative_one_raises_it(clip, cosine, forget, sign):
    start = cosine()
    for layer in clip.candidates():
        group = clip.group(layer)
        step = sign * 0.05 * layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
        with Edit.along(clip, layer, forget, step).applied(clip):
            assert sign * (start - cosine()) > 1e-7, layer


def test_a_positive_step_raises_the_contrastive_loss_of_the_contrastive_variant(clip):
    batch = tiny.pairs(6)
    forget, _ = gradients.compute(clip, batch, losses.contrastive, batch_size=6)
    start = plain.loss(clip, clip.module, batch, losses.contrastive)
    layer = next(n for n in clip.candidates() if n in ("visual.proj", "visual_projection.weight"))
    step = 0.1 * layers.first_step([clip.parameters[layer]], [forget[layer]])
    with Edit.along(clip, layer, forget, step).applied(clip):
        assert plain.loss(clip, clip.module, batch, losses.contrastive) > start


def test_an_assistants_tower_moves_as_its_clips_does(tiny_llava):
    """So a positive step lowers the cosine there, too."""
    model = tiny.load_llava(tiny_llava)
    assert_moves_alike(model, model.candidates()[-1], tiny.pairs(6))


def test_a_pipelines_tower_moves_as_its_clips_does(tiny_clip, tmp_path):
    """So a positive step lowers the cosine there, too."""
    from slug.models import diffusion

    tiny.write_pipeline(tmp_path, tiny_clip / "hugging_face")
    model = diffusion.load(str(tmp_path), tiny.load(tiny_clip, "hugging_face"), steps=1, guidance=1.0)
    assert_moves_alike(model, model.candidates()[-1], tiny.pairs(6))


def assert_moves_alike(model, layer, batch):
    """A step that is made by the CLIP's names gives both towers the same weights and lowers the CLIP's cosines."""
    forget, _ = gradients.compute(model.clip, batch, losses.cosine_embedding, encoder=model.encoder)
    step = 0.05 * layers.first_step([model.clip.parameters[layer]], [forget[layer]])
    edit = Edit.along(model.clip, layer, forget, step, (layer,))
    image, text = tiny.features(model.clip, batch)
    with edit.applied(model), edit.applied(model.clip):
        moved, said = tiny.features(model.clip, batch)
        assert torch.equal(model.tensors[layer], model.clip.parameters[layer])
    assert (moved * said).sum() < (image * text).sum()
