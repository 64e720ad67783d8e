"""GA."""

import pytest
from plain_training import loss_of

from slug.core.edit import Replacement


@pytest.mark.parametrize(("method", "loss"), [("ga", "cosine"), ("ga_o", "contrastive")])
def test_an_epoch_ascends_the_forget_loss_on_the_forget_set(small, method, loss):
    small.check(method, [("forget", loss, -1)])


def test_the_forget_loss_rises(small):
    """With the wrong sign, pictures and names would come closer together."""
    before = loss_of(small.clip, small.material.forget, "cosine").item()
    with Replacement(small.after("ga", epochs=3)).applied(small.clip):
        assert loss_of(small.clip, small.material.forget, "cosine").item() > before + 0.01
