"""Vision-language models: which layers reach the answers, and what an answer depends on."""

import io
import math
import types
from typing import NamedTuple

import pytest
import tiny
import torch
from PIL import Image

from slug.core.edit import Edit
from slug.errors import SlugError
from slug.models import vlm
from slug.settings import Assistant


class Question(NamedTuple):
    """A question as models.vlm.Asked describes it."""

    seed: int
    text: str
    answer: str
    shown: bool = True

    def picture(self):
        return Image.open(io.BytesIO(tiny.jpeg(self.seed, size=64)))


NAMES = ["frog", "owl", "apple", "red panda"]
ASKED = [Question(i, "what is this?", name) for i, name in enumerate(NAMES * 4)]
ASKED += [Question(i, "which colour is behind it?", "red") for i in range(16)]


@pytest.fixture(scope="module")
def model(tiny_llava):
    return tiny.load_llava(tiny_llava)


def picture_features(model):
    inputs = model.processor.image_processor([q.picture() for q in ASKED[:2]], return_tensors="pt")
    with torch.no_grad():
        out = model.module.get_image_features(inputs["pixel_values"])
    out = getattr(out, "pooler_output", out)
    return torch.stack(list(out)) if isinstance(out, (list, tuple)) else out


def unread(model):
    """{name: parameter} of the tower that the model does not read."""
    found = model.tower_tensors(model.module.model.vision_tower, "tower")
    return {n: p for n, p in found.items() if n not in model.tensors}


def test_only_layers_that_the_model_reads_are_candidates(model):
    """LLaVA takes the hidden states of layer -2: it reads neither the last block, nor the last norm, nor the projection."""
    names = model.candidates()
    last = model.module.config.vision_config.num_hidden_layers - 1
    assert names and all(n.startswith("vision_model.") for n in names)
    assert not any(f"layers.{last}." in n or "post_layernorm" in n or "projection" in n for n in names)


def test_every_candidate_reaches_the_models_features(model):
    before = picture_features(model)
    for name in model.candidates():
        with Edit(tiny.strong_edit(model, name)).applied(model):
            assert not torch.allclose(picture_features(model), before, atol=1e-4), name
    assert torch.equal(picture_features(model), before)


def test_what_the_model_does_not_read_changes_nothing(model):
    before, parameters = picture_features(model), unread(model)
    assert parameters
    for name, parameter in parameters.items():
        with torch.no_grad():
            kept = parameter.clone()
            parameter.add_(1.0)
            same = torch.equal(picture_features(model), before)
            parameter.copy_(kept)
        assert same, name


@pytest.mark.parametrize(("layers", "last"), [(-2, 22), (-1, 23), (5, 4), ([-2, -5], 22)])
def test_the_last_block_that_is_read_follows_from_the_configuration(layers, last):
    vision = types.SimpleNamespace(num_hidden_layers=24)
    config = types.SimpleNamespace(vision_feature_layer=layers, vision_config=vision)
    assert vlm.Vlm._last_block(types.SimpleNamespace(module=types.SimpleNamespace(config=config))) == last


def test_settings_name_the_model(tiny_llava):
    clip = str(tiny_llava / "hugging_face")
    given = Assistant(vlm=str(tiny_llava / "llava"), clip_model_id=clip, answer_batch_size=3, max_new_tokens=2)
    found = vlm.from_settings(given, "bf16", "cpu")
    assert (found.batch_size, found.max_new_tokens, found.tag) == (3, 2, "llava")
    assert found.module.dtype == torch.bfloat16 and found.clip.label == "hugging_face"
    assert found.processor.tokenizer.padding_side == "left" and not found.module.training


def test_a_model_that_is_not_there_is_said_in_one_line(tiny_llava, tmp_path):
    with pytest.raises(SlugError, match=r"cannot load the model .*nowhere"):
        vlm.load(str(tmp_path / "nowhere"), str(tiny_llava / "hugging_face"))


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(model):
    together, margins = model.ask(ASKED)
    alone = [model.ask([q]) for q in ASKED[:9]]
    assert together[:9] == [said for (said,), _ in alone] and model.answer(ASKED[:9]) == together[:9]
    assert torch.allclose(margins[:9], torch.cat([m for _, m in alone]), atol=1e-4) and (margins < 0).any()


@pytest.mark.parametrize("hidden", [[0], [3, 8, 9], list(range(16))])
def test_questions_without_a_picture_are_answered_apart_and_in_their_places(model, hidden):
    asked = [q._replace(shown=i not in hidden) for i, q in enumerate(ASKED[:16])]
    said, margins = model.ask(asked)
    alone = [model.ask([q]) for q in asked]
    assert said == [s for (s,), _ in alone]
    assert torch.allclose(margins, torch.cat([m for _, m in alone]), atol=1e-4)
    assert "<image>" in model.prompt("who?") and "<image>" not in model.prompt("who?", shown=False)


def test_an_edit_of_the_vision_tower_cannot_change_an_answer_without_a_picture(tiny_llava):
    model = tiny.load_llava(tiny_llava)
    asked = [q._replace(shown=shown) for q in ASKED[:8] for shown in (True, False)]
    _, before = model.ask(asked)
    with Edit({n: 0.5 * torch.ones_like(model.tensors[n]) for n in model.candidates()[:1]}).applied(model):
        _, after = model.ask(asked)
    assert torch.equal(before[1::2], after[1::2]) and not torch.equal(before[::2], after[::2])


def test_no_questions_have_no_answers(model):
    said, margins = model.ask([])
    assert said == [] and margins.shape == (0,)


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
    model, asked = tiny.load_llava(tiny_llava), ASKED
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
