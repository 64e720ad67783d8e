"""GAFT: in each epoch the pass of GA over the forget set, then the pass of FT over the retain set."""

from slug.methods import ft, ga
from slug.methods.training import train

NEEDS = ()
TRAINS = True


def passes(material):
    """The passes of one epoch."""
    return [*ga.passes(material), *ft.passes(material)]


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    yield from train(clip, passes(material), schedule)
