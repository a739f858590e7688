"""Masks with an N:M pattern for weights that will be re-fitted: sweeps over the groups of a row."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.patterns import sweep_groups
from optiprune.solvers import Status

from .row_solving import RowAnswer

__all__ = ["GROUP_SWEEPS", "GroupTask"]

Bools = npt.NDArray[np.bool_]
# in place of a solver's name in the history: a group is enumerated, no solver is asked
GROUP_SWEEPS = "group-sweeps"


@dataclass(frozen=True, slots=True, eq=False)
class GroupTask:
    """What the rows of a layer share; see `sweep_groups`.

    Attributes
    ----------
    H : (groups, cols, cols) float64, damped Gram matrices
    b : (rows, cols) float64, targets with what damping adds to them
    m : weights of a group of the pattern
    sweeps : passes over the groups, at most
    """

    H: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    m: int
    sweeps: int

    def solve(
        self, row: int, mask: Bools, visited: Bools, seed: np.random.SeedSequence
    ) -> RowAnswer | None:
        """The improved row; None where there is nothing to choose. Nothing is drawn at random."""
        start = time.perf_counter()
        H = self.H[row * self.H.shape[0] // self.b.shape[0]]
        now, change, passes = sweep_groups(H, self.b[row], mask, self.m, self.sweeps)
        if not passes:
            return None
        return RowAnswer(
            row=row,
            mask=now,
            index=np.arange(mask.size),
            predicted=change,
            solver=GROUP_SWEEPS,
            status=Status.FEASIBLE,
            gap=None,
            seconds=time.perf_counter() - start,
        )
