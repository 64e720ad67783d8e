"""GAFT: in each epoch GA's pass over the forget set, then FT's pass over the retain set."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, ft, ga, register_forms

if TYPE_CHECKING:
    from slug.methods._training import Pass, Schedule
    from slug.models.clip import Clip


def passes(material: Material) -> "list[Pass]":
    """The passes of one epoch."""
    return [*ga.passes(material), *ft.passes(material)]


def candidates(clip: "Clip", material: Material, schedule: "Schedule") -> Iterator[int]:
    """Train; yields the number of each finished epoch."""
    from slug.methods._training import train

    yield from train(clip, passes(material), schedule)


CITED = "gradient ascent and fine-tuning in turn, as in Table 1 of the SLUG paper"
register_forms(Method("gaft", "GAFT", CITED, (CLIP,), 22, candidates, setting="lr", trains=True))
