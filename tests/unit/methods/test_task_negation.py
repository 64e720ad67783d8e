"""Task negation."""

import pytest
import torch
from plain_training import LR, each, weights

from slug.core.edit import kept
from slug.methods import task_negation
from slug.methods._training import Schedule


@pytest.fixture
def found(rival):
    return each(rival, "task_negation", Schedule(LR, epochs=3))


def test_there_are_21_candidates_the_first_of_which_is_the_original(found):
    assert len(found) == 21 and found[1] == {} and all(found[n] for n in range(2, 22))


def test_only_the_vision_tower_changes_and_in_proportion_to_a(rival, found):
    base = weights(rival.clip)
    assert {rival.clip.tower(n) for n in found[21]} == {"vision"}
    for name, value in found[21].items():
        half = found[11].get(name, base[name])
        assert torch.allclose(2 * (half - base[name]), value - base[name], atol=1e-6), name


def test_what_is_subtracted_makes_the_pictures_say_the_name_more(rival, found):
    clip, base = rival.clip, weights(rival.clip)
    classes = clip.encode_text(clip.tokenize([f"{n}." for n in ("Alien", "Ant", "Baby", "Bento Box", "Owl")])).detach()

    def value():
        with torch.no_grad():
            logits = clip.scale() * clip.encode_image(rival.material.forget.images) @ classes.T
            by_hand = -logits.log_softmax(1)[:, 0].mean()
            loss = task_negation.over_names(classes)(clip.encode_image(rival.material.forget.images), None, clip.scale())
        assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
        return loss.item()

    values = []
    for factor in (-1, 0, 1):  # the tuned model, the original, and a = 1
        with kept(clip, clip.parameters), torch.no_grad():
            for name, new in found[21].items():
                clip.parameters[name].copy_(base[name] + factor * (new - base[name]))
            values.append(value())
    assert values == sorted(values) and values[0] < values[1]
