"""The best feasible assignment of a dimod sample set, nothing in it taken on trust."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems import ProblemError, QuadraticProblem
from optiprune.problems.binary import forgiven
from optiprune.problems.linearise import constraint_rows

from .dimod_form import SamplerForm, is_exact

__all__ = ["Found", "best_samples"]

_Bits = npt.NDArray[np.int8]

# how many of the feasible rows are evaluated, and how many of the infeasible ones repaired
_EVALUATE = 1000
_REPAIR = 64
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Found:
    """What a sample set holds.

    Attributes
    ----------
    x : the best assignment, or None
    energy : its energy in the problem
    samples, feasible, repaired : rows in all, feasible ones, and rows that were repaired
    complete : whether all 2**n assignments are there
    best_is_feasible : whether the sampler's lowest row (for a CQM, its lowest feasible one) is
        feasible as it stands
    """

    x: _Bits | None
    energy: float
    samples: int
    feasible: int
    repaired: int
    complete: bool
    best_is_feasible: bool

    def proves_optimal(self, sampler: Any) -> bool:
        """An enumeration whose lowest row is feasible: with penalties >= 0, no x can be better."""
        return is_exact(sampler) and self.complete and self.best_is_feasible

    def proves_infeasible(self, sampler: Any) -> bool:
        """An enumeration without a feasible row."""
        return is_exact(sampler) and self.complete and self.feasible == 0


def best_samples(problem: QuadraticProblem, form: SamplerForm, sample_set: Any) -> Found:
    """Read a sample set over the variables 0 .. form.n - 1 of ``form``.

    Feasible rows are evaluated with ``problem``; infeasible ones with the lowest energies are
    repaired and evaluated.
    """
    rows, energies = _rows(sample_set, form.n)
    if not len(rows):
        return Found(None, math.inf, 0, 0, 0, False, False)
    X = rows[:, : problem.n]
    feasible = _feasible(problem, X)
    order = np.argsort(energies, kind="stable")
    complete = len(rows) == 2**form.n
    lowest = order[feasible[order]] if form.penalty is None else order
    best_is_feasible = bool(len(lowest)) and bool(feasible[lowest[0]])
    x, energy = None, math.inf
    good = order[feasible[order]][:_EVALUATE]
    if len(good):
        exact = problem.energies(X[good])
        at = int(np.argmin(exact))
        x, energy = X[good[at]].copy(), problem.energy(X[good[at]])
    repaired = 0
    for i in order[~feasible[order]][:_REPAIR]:
        try:
            y = form.repair(X[i])
        except ProblemError:
            break  # repair found no feasible assignment: the next rows fare no better
        repaired += 1
        e = problem.energy(y)
        if e < energy:
            x, energy = y, e
    return Found(x, energy, len(rows), int(feasible.sum()), repaired, complete, best_is_feasible)


def _rows(sample_set: Any, n: int) -> tuple[_Bits, npt.NDArray[np.float64]]:
    """Samples as a 0/1 array with columns 0 .. n-1, and the sampler's energies."""
    record = sample_set.record
    raw = np.asarray(record.sample)
    at = {v: c for c, v in enumerate(sample_set.variables)}
    if len(raw) and any(i not in at for i in range(n)):
        raise ValueError(f"the sampler's answer lacks variables of the model: it has {list(at)}")
    columns = raw[:, [at[i] for i in range(n)]] if len(raw) else np.zeros((0, n))
    if len(columns) and (columns == -1).any():  # spins, whatever the model's type was
        columns = (columns + 1) // 2
    bits = (columns == 0) | (columns == 1)
    if not bits.all():
        raise ValueError(f"the sampler's answer holds {columns[~bits][0]!r}, not a binary value")
    return columns.astype(np.int8), np.asarray(record.energy, dtype=np.float64)


def _feasible(problem: QuadraticProblem, X: _Bits) -> npt.NDArray[np.bool_]:
    """Which rows of X meet the constraints, by the tolerance of ``problem.violation``."""
    A, lower, upper = constraint_rows(problem)
    out = np.ones(len(X), dtype=bool)
    if not A.shape[0]:
        return out
    for start in range(0, len(X), _CHUNK):
        x = X[start : start + _CHUNK].T.astype(np.float64)
        use, moved = (A @ x).T, (abs(A) @ x).T
        fits = (use - upper <= forgiven(upper, moved)) & (lower - use <= forgiven(lower, moved))
        out[start : start + _CHUNK] = fits.all(axis=1)
    return out
