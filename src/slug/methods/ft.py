"""FT: descend the contrastive loss on the retain set. It does not depend on the name to forget."""

from slug.core import losses
from slug.methods.training import Pass, train

NEEDS = ()
TRAINS = True


def passes(material):
    """The passes of one epoch."""
    return [Pass(material.retain, losses.contrastive, +1)]


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    yield from train(clip, passes(material), schedule)
