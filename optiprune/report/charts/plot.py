"""A chart in pixels, and the area in which it is laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .scale import Scale

__all__ = ["Dot", "Line", "Plot", "PlotArea", "Rect"]

WIDTH, HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 20, 12, 48


@dataclass(frozen=True, slots=True)
class Dot:
    """A point; ``series`` (from 0) is told by colour and form, ``hollow`` by its inside."""

    x: float
    y: float
    series: int
    hollow: bool
    tip: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points, as the ``d`` of an SVG path; ``series`` -1 is a guide."""

    path: str
    series: int
    dashed: bool


@dataclass(frozen=True, slots=True)
class Rect:
    """A bar."""

    x: float
    y: float
    width: float
    height: float
    series: int
    tip: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart.

    Attributes
    ----------
    title, text : what it shows, and what can be seen in it, in words
    legend : (label, series, "dot", "hollow", "line", "dashed" or "bar")
    frame : left, top, right and bottom of the area between the axes
    across, up : (place in pixels, label) of the ticks
    """

    title: str
    text: str
    across_label: str
    up_label: str
    width: int
    height: int
    frame: tuple[float, float, float, float]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    rects: tuple[Rect, ...]
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]
    legend: tuple[tuple[str, int, str], ...]


@dataclass(slots=True)
class PlotArea:
    """Takes values, keeps pixels."""

    across: Scale
    up: Scale
    width: int = WIDTH
    height: int = HEIGHT
    rects: list[Rect] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    legend: list[tuple[str, int, str]] = field(default_factory=list)

    def x(self, value: float) -> float:
        room = self.width - _LEFT - _RIGHT
        return round(_LEFT + room * self.across.place(value), 2)

    def y(self, value: float) -> float:
        room = self.height - _TOP - _BOTTOM
        return round(self.height - _BOTTOM - room * self.up.place(value), 2)

    def dot(self, x: float, y: float, series: int, tip: str, *, hollow: bool = False) -> None:
        if math.isfinite(x) and math.isfinite(y):
            self.dots.append(Dot(self.x(x), self.y(y), series, hollow, tip))

    def line(
        self, points: Sequence[tuple[float, float]], series: int, *, dashed: bool = False
    ) -> None:
        """Broken where a point is not finite."""
        parts, pen = [], "M"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            parts.append(f"{pen}{self.x(x):g} {self.y(y):g}")
            pen = "L"
        if parts:
            self.lines.append(Line("".join(parts), series, dashed))

    def bar(self, left: float, right: float, value: float, series: int, tip: str) -> None:
        """From zero up to ``value``, between two places across."""
        x0, x1, y0, y1 = self.x(left), self.x(right), self.y(0.0), self.y(value)
        width = max(x1 - x0, 0.5)
        self.rects.append(
            Rect(x0, min(y0, y1), round(width, 2), round(abs(y0 - y1), 2), series, tip)
        )

    def plot(self, title: str, text: str, across_label: str, up_label: str) -> Plot:
        """The chart, with the ticks of its axes."""
        return Plot(
            title,
            text,
            across_label,
            up_label,
            self.width,
            self.height,
            (_LEFT, _TOP, self.width - _RIGHT, self.height - _BOTTOM),
            tuple((self.x(v), label) for v, label in self.across.ticks),
            tuple((self.y(v), label) for v, label in self.up.ticks),
            tuple(self.rects),
            tuple(self.lines),
            tuple(self.dots),
            tuple(self.legend),
        )
