"""Modules in memory: they are used as they are, with the tokenizer and preprocessing that they or the caller name."""

import pytest
import tiny
import torch

import slug
from slug.errors import SlugError
from slug.models import in_memory


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_module_in_memory_is_the_clip_of_its_folder(tiny_clip, family):
    loaded = tiny.load(tiny_clip, family)
    given = {} if family == "hugging_face" else {"tokenizer": loaded.tokenizer}
    clip = slug.load(loaded.module, **given)
    assert clip.module is loaded.module and type(clip) is type(loaded)
    pairs = tiny.pairs(3)
    for one, two in zip(tiny.features(clip, pairs), tiny.features(loaded, pairs), strict=True):
        assert torch.equal(one, two)
    assert str(clip.transform) == str(loaded.transform) and torch.equal(clip.mean, loaded.mean)


def test_open_clip_s_own_vocabulary_needs_no_tokenizer():
    import open_clip

    text = {"context_length": 16, "width": 16, "heads": 1, "layers": 1, "vocab_size": in_memory.OPEN_CLIP_WORDS}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 16}
    clip = slug.load(open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text))
    assert clip.tokenize(["a lion"]).shape == (1, 16) and clip.side == 32


def test_another_vocabulary_needs_its_tokenizer(tiny_clip):
    with pytest.raises(SlugError, match=r"give tokenizer=open_clip\.get_tokenizer"):
        slug.load(tiny.load(tiny_clip).module)


def test_a_transformers_module_that_came_from_nowhere_needs_both(tiny_clip):
    loaded = tiny.load(tiny_clip, "hugging_face")
    loaded.module.config._name_or_path = ""
    with pytest.raises(SlugError, match="give tokenizer= and preprocess="):
        slug.load(loaded.module)
    from torchvision import transforms

    steps = [*loaded.transform.transforms[:-1], transforms.ToTensor(), transforms.Normalize(loaded.mean, loaded.std)]
    clip = slug.load(loaded.module, tokenizer=loaded.tokenizer, preprocess=transforms.Compose(steps))
    assert torch.equal(tiny.features(clip, tiny.pairs(2))[0], tiny.features(loaded, tiny.pairs(2))[0])


def test_damaged_weights_are_refused(tiny_clip):
    loaded = tiny.load(tiny_clip)
    with torch.no_grad():
        next(loaded.module.parameters()).fill_(float("nan"))
    with pytest.raises(SlugError, match="hold NaN or infinity"):
        slug.load(loaded.module, tokenizer=loaded.tokenizer)
