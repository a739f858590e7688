"""Budget rows as integers, so that a slack can be written in bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from .binary import BudgetQP, forgiven
from .errors import InfeasibleProblemError, ProblemError

__all__ = ["IntegerRow", "integer_rows", "slack_bits"]

_MAX_DENOMINATOR = 10**6
_MAX_SUM = 2**40  # squares of activities must stay exact-ish in float64


@dataclass(frozen=True, slots=True, eq=False)
class IntegerRow:
    """``lower <= a'x <= upper`` with integers, both limits within the range that a'x can take.

    ``index`` is the row's index in the `BudgetQP`.
    """

    index: int
    a: npt.NDArray[np.int64]
    lower: int
    upper: int


def integer_rows(problem: BudgetQP) -> list[IntegerRow]:
    """Every row that excludes some assignment, scaled to the smallest integers.

    Raises
    ------
    ProblemError
        If a row's entries are not integer multiples of a common unit (denominators up to 10**6),
        or the integers get too large.
    InfeasibleProblemError
        If no integer lies between a row's limits.
    """
    rows = []
    for r in range(problem.n_rows):
        a, unit = _integers(problem.A[r].astype(np.float64), r)
        least, most = int(a[a < 0].sum()), int(a[a > 0].sum())
        lo, up = float(problem.lower[r]) / unit, float(problem.upper[r]) / unit
        # what BudgetQP.violation forgives at any x; where signs differ, a sum may be 0 by rounding
        moved = 1.0 if least < 0 < most else 0.0
        low, high = lo - float(forgiven(lo, moved)), up + float(forgiven(up, moved))
        lower = least if lo <= least else math.ceil(min(low, most + 1.0))
        upper = most if up >= most else math.floor(max(high, least - 1.0))
        lower, upper = max(lower, least), min(upper, most)
        if lower > upper:
            raise InfeasibleProblemError(
                f"budget row {r} cannot be met: its activity is a multiple of {unit:g}, and none "
                f"lies in [{problem.lower[r]:g}, {problem.upper[r]:g}]"
            )
        if lower > least or upper < most:
            rows.append(IntegerRow(r, a, lower, upper))
    return rows


def slack_bits(span: int) -> list[int]:
    """Weights of bits whose subset sums are exactly 0 .. span: 1, 2, 4, ..., and what is left."""
    bits = []
    power = 1
    while span > 0:
        bits.append(min(power, span))
        span -= bits[-1]
        power *= 2
    return bits


def _integers(a: npt.NDArray[np.float64], row: int) -> tuple[npt.NDArray[np.int64], float]:
    """``(integers, unit)`` with ``a = integers * unit`` and the integers' gcd 1."""
    if np.array_equal(a, np.rint(a)) and np.abs(a).sum() < _MAX_SUM:
        whole = a.astype(np.int64)
        g = int(np.gcd.reduce(whole)) if whole.any() else 1
        return whole // g, float(g)
    try:
        numbers, unit = _common_unit(a, row)
    except ProblemError:
        # costs in small units: multiples of the least one, rather than of a decimal
        least = float(np.abs(a[a != 0]).min())
        numbers, unit = _common_unit(a / least, row)
        unit *= least
    if sum(abs(v) for v in numbers) >= _MAX_SUM:
        raise ProblemError(
            f"budget row {row} needs integers that sum to more than 2**40; round its entries to a "
            "coarser unit"
        )
    return np.array(numbers, dtype=np.int64), unit


def _common_unit(a: npt.NDArray[np.float64], row: int) -> tuple[list[int], float]:
    common = 1
    fractions: list[Fraction] = []
    for i, v in enumerate(a.tolist()):
        f = Fraction(v).limit_denominator(_MAX_DENOMINATOR)
        common = math.lcm(common, f.denominator)
        if abs(float(f) - v) > 1e-12 * abs(v) or common > 10**9:
            raise _not_integral(row, i, v)
        fractions.append(f)
    numbers = [int(f * common) for f in fractions]
    g = math.gcd(*numbers) or 1
    return [v // g for v in numbers], g / common


def _not_integral(row: int, i: int, value: float) -> ProblemError:
    return ProblemError(
        f"budget row {row} cannot be scaled to integers (A[{row}, {i}] = {value!r}); a slack in "
        "bits needs integer costs: round the row to multiples of a unit first"
    )
