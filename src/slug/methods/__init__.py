"""What SLUG is compared with (paper, table 1): each method changes the weights in its own way, all are judged alike.

A method is a generator: it changes the model's weights, yields after every candidate (an epoch, or a dampening) with that
candidate's weights in place, and never looks at an evaluation. `METHODS` maps a name to its module; the variants `_o` take
the contrastive loss on the forget set too.
"""

from typing import NamedTuple

from slug.core import losses
from slug.errors import SlugError
from slug.methods import ft, ga, gaft, salun, ssd

METHODS = {"ft": ft, "ga": ga, "gaft": gaft, "salun": salun, "ssd": ssd}
NAMES = ("raw", "ft", "ga", "gaft", "salun", "ssd", "ga_o", "gaft_o", "salun_o", "ssd_o")


class Material(NamedTuple):
    """What a method may use. Pairs are data.Pairs; gradients {name: tensor} of `gradients.load`, or None."""

    forget: object
    retain: object
    form: str  # "" or "_o", see losses.FORGET
    gradient: dict | None = None  # of the forget loss
    forget_importance: dict | None = None
    retain_importance: dict | None = None

    @property
    def forget_loss(self):
        """The forget loss of this form."""
        return losses.FORGET[self.form]


def split(method):
    """`salun_o` -> (module, "_o"). SlugError for an unknown name."""
    name, form = (method[:-2], "_o") if method.endswith("_o") else (method, "")
    if name not in METHODS or method not in NAMES:
        raise SlugError(f"no baseline is called {method!r}; choose from {', '.join(NAMES)}")
    return METHODS[name], form
