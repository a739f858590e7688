"""Cheap bounds on the energy: of a whole problem, and of flipping one variable."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .base import QuadraticProblem

__all__ = ["energy_range", "flip_bounds"]


def flip_bounds(
    problem: QuadraticProblem,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """``(up, down)``: the most that the energy can rise when x_i goes 0 -> 1, and 1 -> 0.

    With a_i = Q_ii + linear_i, over all assignments of the other variables:
    ``up_i = a_i + sum_{j != i} max(2 Q_ij, 0)``, ``down_i = -a_i + sum_{j != i} max(-2 Q_ij, 0)``.
    Both are attained. float64, shape (n,).
    """
    own, positive, negative = _signed_sums(problem)
    return own + 2.0 * positive, -own + 2.0 * negative


def energy_range(problem: QuadraticProblem) -> tuple[float, float]:
    """``(least, most)`` that the quadratic form can be, constraints ignored (not tight).

    Each pair's term is split evenly between its two variables, so that the energy is
    ``offset + sum_i x_i (a_i + sum_{j != i} Q_ij x_j)`` and each summand is bounded by itself.
    """
    own, positive, negative = _signed_sums(problem)
    least = float(np.minimum(own - negative, 0.0).sum())
    most = float(np.maximum(own + positive, 0.0).sum())
    return problem.offset + least, problem.offset + most


def _signed_sums(
    problem: QuadraticProblem,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Q_ii + linear_i, and per row the sums of positive and of |negative| off-diagonal entries."""
    q = problem.dense(np.float64)
    diagonal = q.diagonal()
    total = q.sum(axis=1) - diagonal
    absolute = np.abs(q).sum(axis=1) - np.abs(diagonal)
    positive = np.maximum((absolute + total) / 2, 0.0)
    negative = np.maximum((absolute - total) / 2, 0.0)
    return diagonal + problem.linear, positive, negative
