"""Solution and Status."""

from __future__ import annotations

import numpy as np
import pytest

from optiprune.solvers import Solution, SolveStats, Status


def make(energy: float, bound: float | None, x: bool = True) -> Solution:
    bits = np.zeros(1, dtype=np.int8) if x else None
    return Solution(bits, energy, bound, Status.FEASIBLE, SolveStats("any"))


def test_only_optimal_and_feasible_hold_a_solution() -> None:
    assert [s for s in Status if s.has_solution] == [Status.OPTIMAL, Status.FEASIBLE]


@pytest.mark.parametrize(
    ("energy", "bound", "gap"),
    [(10.0, 8.0, 0.2), (-10.0, -12.0, 0.2), (10.0, 10.0, 0.0), (10.0, 10.5, 0.0), (0.0, 0.0, 0.0)],
)
def test_gap(energy: float, bound: float, gap: float) -> None:
    assert make(energy, bound).gap == pytest.approx(gap)


def test_no_gap_without_a_bound_or_a_solution() -> None:
    assert make(1.0, None).gap is None
    assert make(1.0, 0.0, x=False).gap is None
