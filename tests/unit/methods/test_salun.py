"""SalUn."""

import torch
from plain_training import weights

from slug.methods import salun


def test_the_mask_holds_the_largest_half_of_all_gradients(small):
    gradient = small.material.gradient
    mask = salun.mask(gradient)
    inside = sum(int(m.sum()) for m in mask.values())
    assert inside == round(0.5 * sum(m.numel() for m in mask.values()))
    smallest_in = min(gradient[n][m].abs().min().item() for n, m in mask.items() if m.any())
    largest_out = max(gradient[n][~m].abs().max().item() for n, m in mask.items() if not m.all())
    assert smallest_in >= largest_out


def test_the_first_of_equal_gradients_are_taken():
    mask = salun.mask({"a": torch.zeros(2, 2), "b": torch.tensor([0.0, 5.0])}, share=0.5)
    assert mask["a"].tolist() == [[True, True], [False, False]] and mask["b"].tolist() == [False, True]


def test_outside_the_mask_every_weight_keeps_its_value(small):
    before, mask = weights(small.clip), salun.mask(small.material.gradient)
    found, gaft = small.after("salun", epochs=2), small.after("gaft", epochs=2)
    assert all(torch.equal(found[n][~m], before[n][~m]) for n, m in mask.items())
    assert any(not torch.equal(gaft[n][~m], before[n][~m]) for n, m in mask.items())  # which GAFT changes


def test_inside_the_mask_weights_move(small):
    before, mask = weights(small.clip), salun.mask(small.material.gradient)
    found = small.after("salun")
    assert any((found[n] != before[n])[m].any() for n, m in mask.items())
