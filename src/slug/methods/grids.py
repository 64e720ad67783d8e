"""Grids of settings that grow while the best setting lies at an end."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence


def beyond(grid: Sequence[float], chosen: Sequence[float], asked: Sequence[float], grow: int) -> list[float]:
    """The settings half a decade beyond each end of `grid` that is among `chosen`.

    Args:
        asked: the settings that the user asked for; a single one is no grid and does not grow.
        grow: half decades beyond the ends of `asked`, at most.
    """
    low, high = min(asked) * 10 ** (-grow / 2), max(asked) * 10 ** (grow / 2)
    ends = [c / math.sqrt(10) for c in chosen if c == min(grid)] + [c * math.sqrt(10) for c in chosen if c == max(grid)]
    return sorted({float(f"{e:.1e}") for e in ends if 0.9 * low < e < 1.1 * high}) if len(asked) > 1 else []


def growing(asked: Sequence[float], grow: int, chosen: Callable[[], Sequence[float]]) -> Iterator[float]:
    """Yield the settings of `asked`, then more beyond an end of the grid as long as the setting there is chosen.

    Args:
        asked, grow: see `beyond`.
        chosen: () -> the settings chosen among all yielded so far.
    """
    grid = fresh = list(asked)
    while fresh:
        yield from fresh
        fresh = beyond(grid, chosen(), asked, grow)
        grid = sorted({*grid, *fresh})


def inside(grid: Collection[float], chosen: float) -> bool | None:
    """Whether a setting lies between others of its grid; None where the grid has one setting."""
    return min(grid) < chosen < max(grid) if len(grid) > 1 else None
