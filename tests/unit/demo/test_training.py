"""Checkpoints of a training."""

import pytest
import torch

from demo import training
from slug.errors import SlugError


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(tmp_path):
    source = tmp_path / "script.py"
    source.write_text("a = 1")

    def part(decay=0.01):
        torch.manual_seed(0)
        return training.Part("x", {"x": torch.nn.Linear(2, 2)}, 1e-2, 3, tmp_path, (source,), decay=decay)

    first = part()
    first.run(lambda _: first.modules["x"](torch.ones(1, 2)).square().sum())
    assert part().step == 3
    with pytest.raises(SlugError, match="by another recipe"):
        part(decay=0.1)
    source.write_text("a = 2")
    with pytest.raises(SlugError, match="by another recipe"):
        part()
