"""The model family and the evaluation task of docs/extend.md: the page's own blocks run, and what they make is searched."""

import re

import pytest
import tiny
import torch

from slug.core import gradients, layers, losses, slug
from slug.core.edit import Edit
from slug.core.search import Plan
from slug.data.pairs import Pairs
from slug.files import ROOT


@pytest.fixture(scope="module")
def made():
    """What the blocks of the page define."""
    _, model, task = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(encoding="utf-8"), re.S)
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in (model, task):
            exec(compile(block, "docs/extend.md", "exec"), found)
    return found


def test_the_model_encodes_and_its_layers_are_found(made):
    clip = made["clip"]
    assert set(clip.candidates().values()) == {"vision", "language"}
    assert not any(name.startswith("text.0") or "bias" in name for name in clip.candidates())  # the paper edits neither
    images, texts = tiny.features(clip, some_pairs(clip, 3))
    assert images.shape == texts.shape == (3, 8) and torch.allclose(images.norm(dim=1), torch.ones(3))


def some_pairs(clip, n):
    images = torch.randint(
        0, 256, (n, 3, clip.side, clip.side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return Pairs(images, [f"a thing {i}" for i in range(n)], [str(i) for i in range(n)], 0)


def test_the_task_scores_what_the_search_of_the_model_finds(made):
    clip, evaluator = made["clip"], made["evaluator"]
    start = evaluator.start.scores
    assert {"forget_acc1", "colours_acc1"} <= set(start) and len(evaluator.retain_rows["colours"]) == 15
    forget, _ = gradients.compute(clip, some_pairs(clip, 8), losses.cosine_embedding)
    retain, _ = gradients.compute(clip, some_pairs(clip, 16), losses.contrastive)
    front = [layer for part in layers.fronts(layers.figures(clip, forget, retain)).values() for layer in part]
    found = slug.over_layers(clip, evaluator, front, forget, Plan())
    assert isinstance(found.winner.edit, Edit) and found.winner.layer in clip.candidates()
