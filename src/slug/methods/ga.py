"""GA: ascend the forget loss on the forget set, that is, descend -(1 - cos)."""

from slug.methods.training import Pass, train

NEEDS = ()
TRAINS = True


def passes(material):
    """The passes of one epoch."""
    return [Pass(material.forget, material.forget_loss, -1)]


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    yield from train(clip, passes(material), schedule)
