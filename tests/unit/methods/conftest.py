"""A small model with its material, and AdamW in plain torch to compare trainings with."""

import pytest
import tiny
from plain_training import Small, of_name

from slug import methods
from slug.core import gradients, losses
from slug.core.variants import Variant


@pytest.fixture
def small(tiny_clip):
    """An untrained model with a forget set and a retain set of one batch each, and the forget gradient."""
    clip = tiny.load(tiny_clip)
    forget, retain = tiny.pairs(6), tiny.pairs(8, seed=1)
    gradient, _ = gradients.compute(clip, forget, losses.cosine_embedding)
    return Small(clip, methods.Material(forget, retain, Variant(), gradient))


@pytest.fixture
def rival(tiny_clip):
    """As `small`, with a name that the forget set alone says, other names, and the gradients of both sets."""
    return of_name(tiny.load(tiny_clip))
