"""GA: ascend the forget loss on the forget set, that is, descend -(1 - cos)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slug.methods import CLIP, Material, Method, register_forms

if TYPE_CHECKING:
    from slug.methods._training import Pass, Schedule
    from slug.models.clip import Clip


def passes(material: Material) -> "list[Pass]":
    """The passes of one epoch."""
    from slug.core import losses
    from slug.methods._training import Pass

    return [Pass(material.forget, losses.forget(material.variant), -1)]


def candidates(clip: "Clip", material: Material, schedule: "Schedule") -> Iterator[int]:
    """Train; yields the number of each finished epoch."""
    from slug.methods._training import steps_of_epoch, train

    if schedule.protocol.ga_by_retain_length:
        total = schedule.epochs * steps_of_epoch(material.retain, schedule.batch_size)
        schedule = schedule._replace(total=total)
    yield from train(clip, passes(material), schedule)


CITED = "gradient ascent on the forget set, as in Table 1 of the SLUG paper"
register_forms(Method("ga", "GA", CITED, (CLIP,), 21, candidates, setting="lr", trains=True, epochs="forget_epochs"))
