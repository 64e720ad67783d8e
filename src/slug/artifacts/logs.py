"""Step logs and comparison logs in the published format, a line for each evaluation: ours and the published ones."""

import decimal
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slug import files
from slug.errors import SlugError

NOT_EVALUATED = -1.0  # in logs: readers of the published form take numbers only
CONVENTION = "# ratio is the step size; a positive step ADDS the gradient of 1 - cos. Validation split; -1: not evaluated."


def log_line(n: int, row: Mapping[str, Any], *, ratio: bool = True, mia: float = 1.0) -> str:
    """Evaluation n (0: of the unedited model) as a line of a step log, as published: fractions in [0, 1], MIA in %.

    Every figure is a number without an exponent; what was not evaluated is NOT_EVALUATED.

    Args:
        ratio: whether the line has the step; the published comparison logs do not.
        mia: factor of MIA, 100 in the published comparison logs.
    """
    row = {k: NOT_EVALUATED if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
    member = [row[k] * (mia if row[k] >= 0 else 1) for k in ("mia_mean", "mia_std")]
    step = decimal.Decimal(f"{row['step']:.6g}")
    step_size = f"ratio: {step:f}, " if ratio else ""
    return (
        f"iter: {n}, {step_size}fgt_acc@1: {row['forget_acc1']:.4f}, fgt_acc@5: {row['forget_acc5']:.4f}, "
        f"celeba100@1: {row['identities_acc1']:.4f}, celeba100@5: {row['identities_acc5']:.4f}, "
        f"test_acc@1: {row['objects_acc1']:.4f}, test_acc@5: {row['objects_acc5']:.4f}, "
        f"MIA: {member[0]:.2f}±{member[1]:.2f}"
    )


LINE = re.compile(  # the authors' logs have no ratio, and a time; a logger may have written before it
    r"iter: (?P<iter>\d+), (?:ratio: (?P<ratio>\S+), )?fgt_acc@1: (?P<forget_acc1>\S+), fgt_acc@5: (?P<forget_acc5>\S+), "
    r"celeba100@1: (?P<identities_acc1>\S+), celeba100@5: (?P<identities_acc5>\S+), "
    r"test_acc@1: (?P<objects_acc1>\S+), test_acc@5: (?P<objects_acc5>\S+), "
    r"MIA: (?P<mia_mean>\S+?)±(?P<mia_std>[^\s,%]+)%?(?:, time: (?P<time>[^\s,]+?)s?)?\s*$"
)
BEGINNING = re.compile(r"^iter:|\biter: \d+, (?:ratio|fgt_acc)")


def parse_log(path: Path) -> list[dict[str, float]]:
    """The lines of a step log or a comparison log, ours or a published one, [{column: value}] with NaN for a missing value.

    Other text, such as progress bars, is passed over. Published comparison logs have no ratio and give MIA in hundredths of
    a percent, which are read as %. SlugError: a bad line.
    """
    rows = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        begins = BEGINNING.search(line)
        if begins:
            found = LINE.search(line)
            try:
                row = {k: float(v or "nan") for k, v in found.groupdict().items()} if found else {}
            except ValueError:
                row = {}
            if not row:
                raise SlugError(f"{path}, line {number} is not in the log format: {line[begins.start() :][:80]}")
            if any(row[k] > 1 for k in row if "_acc" in k):
                raise SlugError(f"{path}, line {number} has an accuracy above 1; accuracies of a log are fractions")
            row = {k: math.nan if v == NOT_EVALUATED else v for k, v in row.items()}
            if row["mia_mean"] > 100:
                row |= {k: row[k] / 100 for k in ("mia_mean", "mia_std")}
            rows.append(row)
    return rows


def step_log(start: Any, steps: Iterable[Any], layer: str) -> str:
    """The step log of one layer: the convention, the unedited model as iter 0, then each evaluation in order."""
    return "\n".join([f"# {layer}", CONVENTION, *(log_line(n, c.row()) for n, c in enumerate([start, *steps]))]) + "\n"
