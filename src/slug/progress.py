"""Progress bars on a terminal, and none in a log file or a pipe."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable[Any] | None = None, *, shown: bool = True, **options: Any) -> "tqdm[Any]":
    """A tqdm bar over `items`; without a terminal, or where it is not `shown`, it counts and prints nothing."""
    return tqdm(items, disable=None if shown else True, **options)


def write(line: str) -> None:
    """Print a line above the bars that are shown."""
    tqdm.write(line)
