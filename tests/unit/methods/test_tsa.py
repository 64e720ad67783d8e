"""TSA."""

import pytest
import tiny
import torch
from plain_training import each, of_name, weights

from slug import methods
from slug.methods import tsa


def test_the_loss_by_hand():
    w, change = torch.eye(2), torch.tensor([[0.0, 3.0], [0.0, 4.0]])
    own, kept, empty = torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0], [5.0, 0.0]]), torch.tensor([0.0, 1.0])
    # The name is not moved: |(-1, 1)|; the kept names move by 5 and 0, |B A| is 5.
    assert tsa.loss(change, w, own, kept, empty, (1.3, 0.4)).item() == pytest.approx(1.3 * 2**0.5 + 0.4 * 2.5 + 5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_hidden_states_are_what_the_projection_reads(tiny_clip, family):
    clip = of_name(tiny.load(tiny_clip, family)).clip
    states = tsa.hidden(clip, ["Alien", "a bento box", ""])
    w = clip.module.text_projection.T if family == "open_clip" else clip.module.text_projection.weight
    wanted = clip.encode_text(clip.tokenize(["Alien", "a bento box", ""]))
    assert torch.allclose(torch.nn.functional.normalize(states @ w.T, dim=1), wanted, atol=1e-5)


def test_only_the_text_projection_changes_by_rank_five_and_the_loss_falls(rival, monkeypatch):
    monkeypatch.setattr(tsa, "ADAM_STEPS", 400)
    clip, base = rival.clip, weights(rival.clip)["text_projection"]
    with torch.no_grad():
        empty = clip.encode_text(clip.tokenize([""]))[0]
    states = tsa.hidden(clip, ["Alien", "Ant", "Baby", "Bento Box"])
    found = each(rival, "tsa", 1.3)
    assert len(found) == 4 and methods.get("tsa").count == 20
    for number, changed in found.items():
        assert set(changed) == {"text_projection"}
        change = (changed["text_projection"] - base).T
        assert torch.linalg.svdvals(change)[5:].max() < 1e-4 < torch.linalg.svdvals(change)[0]
        how = base.T, states[0], states[1:], empty, (1.3, tsa.RETAIN[(number - 1) // 2])
        assert tsa.loss(change, *how) < tsa.loss(torch.zeros_like(change), *how)


def test_each_retain_weight_starts_from_the_original_weights(rival, monkeypatch):
    monkeypatch.setattr(tsa, "ADAM_STEPS", 200)
    both = each(rival, "tsa", 1.0)
    monkeypatch.setattr(tsa, "RETAIN", tsa.RETAIN[1:])
    assert torch.equal(each(rival, "tsa", 1.0)[1]["text_projection"], both[2]["text_projection"])
