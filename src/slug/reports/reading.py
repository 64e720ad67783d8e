"""Tables that reports read from folders which people copy and edit: one that is not as written is refused in one line."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from slug.errors import SlugError, brief

STEPS = ("layer", "step", "forget_acc1", "identities_acc1", "objects_acc1")  # of the CSV of a CLIP's candidates
SEVERAL = ("model", "count", "task", "method", "name", "forget_acc1")  # of the table of several names forgotten together
# What a report raises on a table of other things than its stage writes.
ODD = (KeyError, ValueError, TypeError, IndexError, AttributeError, ArithmeticError, StopIteration, RecursionError)
# Columns of words; all others hold numbers.
TEXTS = ("case", "layer", "name", "kind", "method", "model", "split", "task", "seeds")


def csv_table(path: Path, columns: Sequence[str], remedy: str) -> pd.DataFrame:
    """The rows of a CSV. SlugError if it is missing, empty or damaged, lacks one of `columns`, or has words for numbers."""
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError as err:
        raise SlugError(f"{path} is missing; {remedy}") from err
    except (OSError, ValueError) as err:  # pandas' own errors on empty and damaged files are kinds of ValueError
        raise SlugError(f"{path} is no whole CSV ({brief(err)}); {remedy}") from err
    lacks = next((c for c in columns if c not in frame), None)
    if lacks or frame.empty:
        raise SlugError(f"{path} has {'no column ' + lacks if lacks else 'no rows'}; {remedy}")
    read = [c for c in frame if c in columns or str(c).endswith(("_acc1", "_trace"))]
    words = next((c for c in read if c not in TEXTS and not pd.api.types.is_numeric_dtype(frame[c])), None)
    if words:
        raise SlugError(f"{path} has other things than numbers in its column {words}; {remedy}")
    return frame


@contextlib.contextmanager
def as_written(path: Path, remedy: str) -> Iterator[None]:
    """Context in which a report is made of what lies at `path`: SlugError where that is not what its stage writes."""
    try:
        yield
    except ODD as err:
        raise SlugError(f"{path} holds what no stage writes ({type(err).__name__}: {brief(err)}); {remedy}") from err


def report(path: Path, make: Callable[[pd.DataFrame], str], remedy: str, columns: Sequence[str] = ()) -> str:
    """The text that `make` gives of a CSV. SlugError if the CSV is not as its stage writes it; see `csv_table`."""
    frame = csv_table(path, columns, remedy)
    with as_written(path, remedy):
        return make(frame)
