"""GAFT."""

import pytest


@pytest.mark.parametrize(("method", "loss"), [("gaft", "cosine"), ("gaft_o", "contrastive")])
def test_an_epoch_is_one_of_ga_and_then_one_of_ft(small, method, loss):
    small.check(method, [("forget", loss, -1), ("retain", "contrastive", 1)])
