"""FT."""

from plain_training import loss_of

from slug.core.edit import Replacement


def test_an_epoch_descends_the_contrastive_loss_on_the_retain_set(small):
    small.check("ft", [("retain", "contrastive", 1)])


def test_the_retain_loss_falls(small):
    before = loss_of(small.clip, small.material.retain, "contrastive").item()
    with Replacement(small.after("ft", epochs=3)).applied(small.clip):
        assert loss_of(small.clip, small.material.retain, "contrastive").item() < before - 0.01
