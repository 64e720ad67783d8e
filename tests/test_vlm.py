"""Vision-language models on an untrained LLaVA: answers, margins, and the layers that the model reads."""

import math

import pytest
import tiny
import tiny_llava as assistants
import torch
from transformers import LlavaForConditionalGeneration

from slug import models
from slug.core.edit import Edit
from slug.errors import SlugError
from slug.evaluation import questions
from slug.models import vlm


@pytest.fixture(scope="module")
def model(tiny_llava):
    return assistants.load(tiny_llava)


def picture_features(model, found):
    inputs = model.processor.image_processor([q.picture() for q in found], return_tensors="pt")
    with torch.no_grad():
        out = model.module.get_image_features(inputs["pixel_values"])
    out = getattr(out, "pooler_output", out)
    return torch.stack(list(out)) if isinstance(out, (list, tuple)) else out


def test_only_layers_that_the_model_reads_are_candidates_and_each_reaches_its_features(model, tiny_llava):
    """LLaVA takes layer -2: the last block, the last norm and the projection say nothing to it."""
    names = model.candidates()
    last = model.module.config.vision_config.num_hidden_layers - 1
    assert names and all(n.startswith("vision_model.") for n in names)
    assert not any(f"layers.{last}." in n or "post_layernorm" in n or "projection" in n for n in names)
    asked = questions.read(tiny_llava / "questions.jsonl")[:2]
    before = picture_features(model, asked)
    for name in names:
        with Edit(tiny.strong_edit(model, name)).applied(model):
            assert not torch.allclose(picture_features(model, asked), before, atol=1e-4), name
    assert torch.equal(picture_features(model, asked), before)


def test_what_the_model_does_not_read_changes_nothing(model, tiny_llava):
    asked = questions.read(tiny_llava / "questions.jsonl")[:2]
    before = picture_features(model, asked)
    unread = [n for n in model.tower_tensors(model.module.model.vision_tower, "tower") if n not in model.tensors]
    assert unread
    parameters = model.tower_tensors(model.module.model.vision_tower, "tower")
    for name in unread:
        with torch.no_grad():
            kept = parameters[name].clone()
            parameters[name].add_(1.0)
            same = torch.equal(picture_features(model, asked), before)
            parameters[name].copy_(kept)
        assert same, name


def test_another_clip_is_refused(tiny_llava, tmp_path):
    tiny.write_random_clip(tmp_path, seed=1)
    module = LlavaForConditionalGeneration.from_pretrained(tiny_llava / "llava")
    other = models.load(clip_model_id=str(tmp_path / "hugging_face"))
    with pytest.raises(SlugError, match="is not the CLIP of this model's vision tower"):
        vlm.Vlm(module, None, other, label="x")


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(model, tiny_llava):
    asked = questions.read(tiny_llava / "questions.jsonl")
    together, margins = model.ask(asked)
    alone = [model.ask([q]) for q in asked[:9]]
    assert together[:9] == [said for (said,), _ in alone]
    assert torch.allclose(margins[:9], torch.cat([m for _, m in alone]), atol=1e-4) and (margins < 0).any()


def test_a_margin_tells_whether_the_answer_begins_with_the_right_one():
    """Names that share a first word differ in a later token."""
    logits = torch.zeros(3, 3, 6)  # three tokens of three answers
    said = torch.tensor([[1, 2, 0], [1, 3, 0], [4, 0, 0]])
    for i, row in enumerate(said):
        for t, token in enumerate(row):
            logits[t, i, token] = 2.0 - t / 2
    found = vlm._margins(logits, said, [[1, 2], [1, 2], [1, 2]])
    assert found.tolist() == [1.5, -1.5, -2.0]  # said; a second word that is another; another from the first on


def test_what_is_asked_again_is_prepared_once(tiny_llava):
    model, asked = assistants.load(tiny_llava), questions.read(tiny_llava / "questions.jsonl")
    first = model.ask(asked)
    kept = {k: v.clone() for k, v in model.inputs(tuple(asked[:8])).items()}
    edit = {n: 0.5 * torch.ones_like(model.tensors[n]) for n in model.candidates()[:1]}
    with Edit(edit).applied(model):
        other = model.ask(asked)
    again = model.ask(asked)
    batches = math.ceil(len(asked) / model.batch_size)
    assert (model.inputs.cache_info().misses, model.inputs.cache_info().hits) == (batches, 2 * batches + 1)
    assert again[0] == first[0] and torch.equal(again[1], first[1]) and not torch.equal(other[1], first[1])
    assert all(torch.equal(v, kept[k]) for k, v in model.inputs(tuple(asked[:8])).items())
