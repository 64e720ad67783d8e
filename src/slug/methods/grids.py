"""Grids of settings that grow while the best one lies at an end."""

import math


def beyond(grid, chosen, asked, grow):
    """The settings half a decade beyond an end of `grid` at which one of `chosen` lies, `grow` half decades at most.

    Args:
        grid, chosen: settings.
        asked: the settings the user asked for; `grow` counts from these.
    """
    low, high = min(asked) * 10 ** (-grow / 2), max(asked) * 10 ** (grow / 2)
    ends = [c / math.sqrt(10) for c in chosen if c == min(grid)] + [c * math.sqrt(10) for c in chosen if c == max(grid)]
    return sorted({float(f"{e:.1e}") for e in ends if 0.9 * low < e < 1.1 * high}) if len(asked) > 1 else []


def growing(asked, grow, chosen):
    """Yield the settings of `asked`, then what lies `beyond` as long as a chosen one lies at an end of what was yielded.

    Args:
        asked, grow: see `beyond`.
        chosen: () -> the settings that are chosen among all yielded so far.
    """
    grid = fresh = list(asked)
    while fresh:
        yield from fresh
        fresh = beyond(grid, chosen(), asked, grow)
        grid = sorted({*grid, *fresh})


def inside(grid, chosen):
    """Whether a setting lies between others of its grid; None of a single one."""
    return min(grid) < chosen < max(grid) if len(grid) > 1 else None
