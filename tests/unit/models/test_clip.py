"""The interface of CLIPs, on the tiny models of both families."""

import tiny
import torch
from PIL import Image
from reuse import inputs_of, whole

from slug.core.edit import Edit


def test_encoding_gives_unit_features_of_the_librarys_forward_pass(clip):
    inputs = inputs_of(clip)
    with torch.no_grad():
        found = {"vision": clip.encode_image(inputs["vision"]), "language": clip.encode_text(inputs["language"])}
    for encoder, features in found.items():
        assert features.shape == (4, 24) and torch.allclose(features.norm(dim=1), torch.ones(4))
        assert (features - whole(clip, encoder, inputs[encoder])).abs().max() < 1e-5


def test_cutting_texts_changes_no_feature(clip):
    tokens = inputs_of(clip)["language"]
    with torch.no_grad():
        assert torch.allclose(clip.encode_text(tokens), clip.encode_text(tokens, trim=False), atol=1e-6)
    assert clip.trimmed(tokens[:1]).shape[1] < tokens.shape[1]


def test_images_are_uint8_until_they_are_normalised(clip):
    image = clip.transform(Image.new("RGB", (100, 80), (255, 0, 128)))
    assert image.shape == (3, clip.side, clip.side) == (3, 64, 64) and image.dtype == torch.uint8
    found = clip.normalise(image[None])
    wanted = torch.tensor([1.0, -1.0, 2 * 128 / 255 - 1])  # mean and deviation are 0.5
    assert torch.allclose(found[0, :, 0, 0], wanted, atol=1e-6)


def test_an_evaluation_has_no_gradients_and_the_models_autocast(clip):
    clip.autocast = torch.bfloat16
    linear = torch.nn.Linear(2, 2)
    with clip.evaluating():
        out = linear(torch.ones(1, 2))
    assert out.dtype == torch.bfloat16 and not out.requires_grad


def test_no_bias_scale_or_embedding_is_a_layer(clip):
    found = clip.candidates()
    assert set(found.values()) == {"vision", "language"}
    left_out = ["bias", "logit_scale", "position", "token_embedding", "class_embedding"]
    if clip.family == "hf":  # the published Hugging Face runs leave the norms out too
        left_out += ["layer_norm", "layernorm", "layrnorm"]
    assert list(found) == [n for n in clip.parameters if not any(word in n for word in left_out)]
    assert all((e == "vision") == ("vis" in n) for n, e in found.items())


def test_the_scale_is_kept_between_1_and_100(clip):
    with torch.no_grad():
        for value, wanted in ((9.0, 100.0), (-1.0, 1.0), (2.0, 7.389)):
            clip.module.logit_scale.fill_(value)
            clip.clamp_scale()
            assert torch.isclose(clip.scale(), torch.tensor(wanted), rtol=1e-3)


def test_a_temporary_edit_changes_its_layer_only_and_is_gone_afterwards(clip):
    before = {n: p.clone() for n, p in clip.parameters.items()}
    name = next(iter(clip.candidates()))
    change = torch.randn(before[name].shape)
    try:
        with Edit({name: change}).applied(clip):
            assert torch.equal(clip.parameters[name], before[name] + change)
            assert all(torch.equal(p, before[n]) for n, p in clip.parameters.items() if n != name)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)
