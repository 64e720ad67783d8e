"""FT: descend the contrastive loss on the retain set, which leaves out the pairs of the name that is forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register

if TYPE_CHECKING:
    from slug.methods._training import Pass, Schedule
    from slug.models.clip import Clip


def passes(material: Material) -> "list[Pass]":
    """The passes of one epoch."""
    from slug.core.losses import contrastive
    from slug.methods._training import Pass

    return [Pass(material.retain, contrastive, +1)]


def candidates(clip: "Clip", material: Material, schedule: "Schedule") -> Iterator[int]:
    """Train; yields the number of each finished epoch."""
    from slug.methods._training import train

    yield from train(clip, passes(material), schedule)


CITED = "fine-tuning on the retain set, as in Table 1 of the SLUG paper"
METHOD = register(Method("ft", "FT", CITED, (CLIP,), 20, candidates, setting="lr", trains=True))
# As the paper shows it, whose FT forgets next to nothing: by our rule the candidate that damages most may be the one that
# recognises the name least.
register(replace(METHOD, name="ft_retained", label="FT, best retained", rank=53, asked=True, retains=True))
