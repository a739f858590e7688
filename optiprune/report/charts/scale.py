"""Values to places on an axis: linear, logarithmic, and logarithmic on both sides of zero."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Scale"]

Kind = Literal["linear", "log", "symlog"]


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis.

    Attributes
    ----------
    low, high : its ends, ``low < high``
    ticks : values with labels
    kind : "symlog" is linear between ``-near`` and ``near`` and logarithmic beyond
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    kind: Kind = "linear"
    near: float = 1.0

    @classmethod
    def linear(cls, values: Iterable[float], *, zero: bool = False, steps: int = 5) -> Scale:
        """An axis that shows all finite ``values``; with ``zero`` it begins there."""
        low, high = _ends(values)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high == low:
            room = abs(low) * 0.1 or 1.0
            low, high = low - (0 if zero and low == 0 else room), high + room
        step = _round_step((high - low) / steps)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple((k * step, _label(k * step, step)) for k in range(first, last + 1))
        return cls(ticks[0][0], ticks[-1][0], ticks)

    @classmethod
    def log(cls, values: Iterable[float]) -> Scale:
        """An axis of powers of ten, or of 1, 2, 5 where they are few; values <= 0 have no place."""
        low, high = _ends(v for v in values if v > 0)
        low = low if low > 0 else 1.0
        high = max(high, low)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        decades = range(first, max(last, first + 1) + 1)
        factors = (1, 2, 5) if len(decades) <= 4 else (1,)
        marks = [f * 10.0**d for d in decades for f in factors]
        lower = max((m for m in marks if m <= low * 1.0001), default=marks[0])
        upper = min((m for m in marks if m >= high * 0.9999), default=marks[-1])
        if upper <= lower:
            lower, upper = lower / 2, upper * 2
        every = max(1, len(decades) // 7)
        shown = [m for m in marks if lower * 0.999 <= m <= upper * 1.001]
        shown = shown if len(factors) > 1 else shown[::every]
        return cls(lower, upper, tuple((m, f"{m:g}".replace("-", "−")) for m in shown), "log")

    @classmethod
    def symlog(cls, values: Iterable[float], near: float) -> Scale:
        """Logarithmic on both sides of zero, for changes of very different sizes."""
        low, high = _ends(values)
        scale = cls(0.0, 1.0, (), "symlog", near)
        first, last = scale._map(min(low, 0.0)), scale._map(max(high, 0.0))
        if first == last:
            last = first + 1.0
        marks = [0.0]
        top = math.ceil(max(abs(first), abs(last), 1.0))
        every = max(1, top // 3)
        for power in range(1, top + 1, every):
            value = near * 10.0 ** (power - 1)
            marks += [v for v in (-value, value) if first - 0.01 <= scale._map(v) <= last + 0.01]
        ticks = tuple((v, f"{v:.1g}".replace("-", "−")) for v in sorted(marks))
        room = 0.04 * (last - first)
        return cls(scale._back(first - room), scale._back(last + room), ticks, "symlog", near)

    def place(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; what lies beyond is put at the end."""
        low, high = self._map(self.low), self._map(self.high)
        return min(1.0, max(0.0, (self._map(value) - low) / (high - low)))

    def _map(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(max(value, 1e-300))
        if self.kind == "symlog":
            ratio = abs(value) / self.near
            size = ratio if ratio <= 1 else 1 + math.log10(ratio)
            return math.copysign(size, value)
        return value

    def _back(self, mapped: float) -> float:
        """The value of a place on a symlog axis."""
        size = abs(mapped)
        return math.copysign(self.near * (size if size <= 1 else 10 ** (size - 1)), mapped)


def _ends(values: Iterable[float]) -> tuple[float, float]:
    finite = [v for v in values if math.isfinite(v)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((f * power for f in (1, 2, 2.5, 5) if f * power >= rough * 0.999), 10 * power)


def _label(value: float, step: float) -> str:
    """As few digits as tell the ticks apart exactly."""
    if value and (abs(value) >= 1e5 or step < 1e-6):
        return f"{value:.3g}".replace("-", "−")
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    while abs(round(value, places) - value) > step / 100:  # a step of 0.25
        places += 1
    return f"{value:.{places}f}".replace("-", "−") if round(value, places) else "0"
