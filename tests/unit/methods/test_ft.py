"""FT."""

from plain_training import loss_of

from slug import methods
from slug.core.edit import Replacement


def test_an_epoch_descends_the_contrastive_loss_on_the_retain_set(small):
    small.check("ft", [("retain", "contrastive", 1)])


def test_the_retain_loss_falls(small):
    before = loss_of(small.clip, small.material.retain, "contrastive").item()
    with Replacement(small.after("ft", epochs=3)).applied(small.clip):
        assert loss_of(small.clip, small.material.retain, "contrastive").item() < before - 0.01


def test_one_training_serves_all_names():
    assert [n for n in methods.names(methods.CLIP, searched=False) if methods.get(n).shared] == ["ft"]
