"""Charts as inline SVG: what their template draws, with every position computed here.

Every point says what it is when it is hovered or reached by the arrow keys; the same text stands in a table below.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

WIDTH, HEIGHT = 460, 300  # of the drawing, which scales with the page
NARROW = 330, 240  # of three beside each other
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 42  # margins of the axes
SHAPES = {  # around (0, 0)
    "circle": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "square": "M-3.6,-3.6h7.2v7.2h-7.2Z",
    "diamond": "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
    "triangle": "M0,-4.8L4.9,3.8H-4.9Z",
    "down": "M0,4.8L4.9,-3.8H-4.9Z",
    "cross": "M-4,-4L4,4M-4,4L4,-4",
    "plus": "M0,-5V5M-5,0H5",
    "star": "M0,-8L2.1,-2.6L7.6,-2.5L3.2,1L4.7,6.5L0,3.3L-4.7,6.5L-3.2,1L-7.6,-2.5L-2.1,-2.6Z",
}
IN_TURN = ("circle", "square", "diamond", "triangle", "down", "cross", "plus")


class Point(NamedTuple):
    """A point of a series, and what it says."""

    x: float
    y: float
    says: str
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one kind. `color`: a class of the style sheet, c0 to c7, ink, or muted."""

    label: str
    points: Sequence[Point]
    color: str = "c0"
    shape: str = "circle"
    line: bool = False
    dash: str = ""
    small: bool = False

    @property
    def path(self) -> str:
        """The outline of its marker."""
        return SHAPES[self.shape]


@dataclass(frozen=True)
class Axis:
    """An axis. `scale` is linear or log."""

    label: str
    low: float
    high: float
    scale: str = "linear"
    names: tuple[str, ...] = ()  # of the places 0, 1, ..., instead of numbers

    def warped(self, value: float) -> float:
        """A value on the axis' own scale."""
        return math.log10(max(value, 1e-300)) if self.scale == "log" else value

    def place(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        low, high = self.warped(self.low), self.warped(self.high)
        return (self.warped(value) - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """(value, text) of the marks."""
        if self.names:
            return list(enumerate(self.names))
        if self.scale == "log":
            tens = [10.0**k for k in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)]
            few = [t for t in tens if self.low <= t <= self.high]
            between = (1, 2, 5) if len(few) < 3 else (1,)
            values = [m * t for t in tens for m in between if self.low <= m * t <= self.high]
            values = values[:: max(1, math.ceil(len(values) / 7))]
        else:
            step = _round_step((self.high - self.low) / 5)
            first = math.ceil(self.low / step - 1e-9)
            values = [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(v, f"{v:.4g}".replace("-", "\u2212") if abs(v) < 1e5 else f"{v:.0e}") for v in values]


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return power * next(m for m in (1, 2, 5, 10) if size <= m * power * 1.0001)


def around(values: Iterable[float], label: str, *, scale: str = "linear", margin: float = 0.06) -> Axis:
    """An axis that holds all finite values, with a margin."""
    known = [v for v in values if math.isfinite(v) and (scale != "log" or v > 0)] or [1.0]
    low, high = min(known), max(known)
    if scale == "log":
        spread = max(math.log10(high / low), 0.3)
        return Axis(label, low / 10 ** (margin * spread), high * 10 ** (margin * spread), scale)
    spread = (high - low) or abs(high) or 1.0
    return Axis(label, low - margin * spread, high + margin * spread, scale)


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        heads: what the columns of its table are called: the point, x, y.
        levels: (value, label) of horizontal dotted lines.
        band: (low, high) of a shaded part, of y or, if `band_of_x`, of x; `band_label` says what it is.
        of: which pictures or pairs the figures are of, which the caption says below the title.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    levels: Sequence[tuple[float, str]] = ()
    band: tuple[float, float] | None = None
    band_label: str = ""
    band_of_x: bool = False
    heads: tuple[str, str, str] = ("point", "x", "y")
    size: tuple[int, int] = field(default=(WIDTH, HEIGHT))
    of: str = ""

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """x, y, width, height of the axes."""
        return LEFT, TOP, self.size[0] - LEFT - RIGHT, self.size[1] - TOP - BOTTOM

    def px(self, value: float) -> float:
        """Horizontal position of an x."""
        return round(LEFT + self.frame[2] * min(max(self.x.place(value), -0.05), 1.05), 1)

    def py(self, value: float) -> float:
        """Vertical position of a y."""
        return round(TOP + self.frame[3] * (1 - min(max(self.y.place(value), -0.05), 1.05)), 1)

    def line(self, series: Series) -> str:
        """The path through the points of a series."""
        known = [p for p in series.points if math.isfinite(p.x) and math.isfinite(p.y)]
        return "".join(f"{'L' if i else 'M'}{self.px(p.x)},{self.py(p.y)}" for i, p in enumerate(known))

    def shown(self, series: Series) -> list[Point]:
        """The points of a series that lie within the axes."""
        inside = [p for p in series.points if math.isfinite(p.x) and math.isfinite(p.y)]
        return [p for p in inside if -0.03 <= self.x.place(p.x) <= 1.03 and -0.03 <= self.y.place(p.y) <= 1.03]

    @property
    def legend(self) -> list[Series]:
        """One series for each label."""
        return list({s.label: s for s in reversed(self.series)}.values())

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table of the chart: series, point, x, y."""
        return [
            (s.label, p.says, f"{p.x:.4g}", f"{p.y:.4g}")
            for s in self.series
            for p in s.points
            if math.isfinite(p.x) and math.isfinite(p.y)
        ]
