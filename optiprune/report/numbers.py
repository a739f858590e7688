"""Numbers as a reader wants them: a few digits, a sign where it is a change, a dash for none."""

from __future__ import annotations

import math

from .document import Cell

__all__ = ["change", "count", "duration", "number", "percent", "size", "whole"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None, digits: int = 4) -> Cell:
    """``0.01234``, ``1.2e-09``."""
    if value is None or math.isnan(value):
        return Cell(None, "–")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return Cell(value, f"{value:,.0f}".replace("-", "−"))
    return Cell(value, f"{value:.{digits}g}".replace("-", "−"))


def change(value: float | None, digits: int = 3) -> Cell:
    """With its sign."""
    cell = number(value, digits)
    if value is None or math.isnan(value) or value <= 0:
        return cell
    return Cell(cell.value, f"+{cell.text}")


def count(value: int | None) -> Cell:
    """``12,345``."""
    return Cell(value, "–" if value is None else f"{value:,}")


def percent(value: float | None, places: int = 1) -> Cell:
    """A share as ``12.3 %``; JSON gets the share."""
    if value is None or math.isnan(value):
        return Cell(None, "–")
    text = f"{100 * value:.{places}f}"
    if value and float(text) == 0:
        text = f"{100 * value:.2g}"
    return Cell(value, f"{text.replace('-', '−')} %")


def duration(seconds: float | None) -> Cell:
    """``0.31 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``."""
    if seconds is None or math.isnan(seconds):
        return Cell(None, "–")
    if seconds < 10:
        return Cell(seconds, f"{seconds:.2g} s")
    left = round(seconds)
    if left < 60:
        return Cell(seconds, f"{left} s")
    if left < 3600:
        return Cell(seconds, f"{left // 60} min {left % 60} s")
    return Cell(seconds, f"{left // 3600:,} h {left % 3600 // 60} min")


def size(n: int) -> str:
    """Bytes as ``1.5 MiB``."""
    value, unit = float(n), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{n} B" if not unit else f"{value:.1f} {_UNITS[unit]}"


def whole(n: int, one: str, many: str | None = None) -> str:
    """``1 layer``, ``1,200 layers``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
