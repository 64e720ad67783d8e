"""The training of the mini-LLaVA: several questions in one row, and the loss."""

import numpy as np
import pytest
import tiny
import torch

from demo import canvases, emoji, train_vlm


@pytest.fixture(scope="module")
def model(tiny_llava):
    return tiny.load_llava(tiny_llava)


def test_questions_of_one_training_picture_know_nothing_of_one_another(model):
    """Packed into one row, each gives the logits that it gives alone, as the chat template would write it."""
    tokens, rng = model.module.config.image_seq_length, np.random.default_rng(0)
    concepts = emoji.concepts()
    world = concepts, emoji.pictures(concepts)
    rows = {"identity": [0, 1, 2], "object": [i for i, p in enumerate(world[1]) if concepts[p.concept].kind == "object"][:9]}
    asked = [canvases.conversation(rng, world, rows, 0.5) for _ in range(6)]
    assert {len(scenes) for scenes in asked} == {4} and len({len(scenes[0].icons) for scenes in asked}) > 1
    x = torch.randn(len(asked), 3, 64, 64)
    with torch.no_grad():
        packed = train_vlm.encode(model.processor, asked, tokens)
        together = model.module(pixel_values=x, **packed).logits
        for row, scenes in enumerate(asked):
            answers = together[row][(packed["labels"][row] != -100).nonzero()[:, 0] - 1]
            for s in scenes:
                content = [{"type": "image"}, {"type": "text", "text": s.question}]
                template = {"add_generation_prompt": True, "tokenize": False}
                text = model.processor.apply_chat_template([{"role": "user", "content": content}], **template)
                text = text.replace("<image>", "<image> " * tokens) + f" {s.answer} </s>"
                ids = model.processor.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
                n = len(model.processor.tokenizer(s.answer, add_special_tokens=False).input_ids) + 1
                alone = model.module(input_ids=ids, pixel_values=x[row : row + 1]).logits[0, -n - 1 : -1]
                assert torch.allclose(answers[:n], alone, atol=1e-5)
                answers = answers[n:]
            assert len(answers) == 0


def test_the_loss_is_the_models_own_and_knows_nothing_of_hidden_patches(model):
    tokens, rng = model.module.config.image_seq_length, np.random.default_rng(0)
    concepts = emoji.concepts()
    rows = {"identity": [0, 1, 2], "object": [0, 1, 2]}
    asked = [canvases.conversation(rng, (concepts, emoji.pictures(concepts)), rows, 0.5) for _ in range(4)]
    x = torch.randn(len(asked), 3, 64, 64)
    with torch.no_grad():
        packed = train_vlm.encode(model.processor, asked, tokens)
        loss = train_vlm.answers_loss(model.module, x, packed)
        assert loss == pytest.approx(model.module(pixel_values=x, **packed).loss.item(), rel=1e-5)
        hidden = torch.zeros(len(asked), tokens, dtype=torch.bool)
        hidden[0, 3] = True
        features = list(model.module.get_image_features(x).pooler_output)
        embeds = model.module.get_input_embeddings()(packed["input_ids"])
        embeds[packed["input_ids"] == model.processor.image_token_id] = torch.cat(features)
        for rest, same in ((packed, False), (train_vlm.encode(model.processor, asked, tokens, hidden), True)):
            rest = {k: v for k, v in rest.items() if k not in ("input_ids", "labels")}
            found = []
            for change in (0.0, 1.0):
                moved = embeds.clone()
                moved[0, packed["input_ids"][0].tolist().index(model.processor.image_token_id) + 3] += change
                states = model.module.model.language_model(inputs_embeds=moved, **rest).last_hidden_state
                found.append(states[packed["labels"] != -100])
            assert torch.equal(*found) == same
