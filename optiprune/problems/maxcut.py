"""Max-cut as a QUBO: the weights of the edges between two sides, to be made large."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Problem, as_binary
from .binary import QUBO
from .errors import ProblemError
from .matrix import FactoredMatrix, as_matrix

__all__ = ["cut_value", "maxcut_qubo", "maxcut_weights"]


def maxcut_qubo(weights: Any) -> QUBO:
    """The QUBO whose energy is **minus** the cut: ``sum_{i<j} w_ij (2 x_i x_j - x_i - x_j)``.

    Parameters
    ----------
    weights : (n, n) symmetric array-like or sparse matrix with a zero diagonal

    Raises
    ------
    ProblemError
        On a wrong shape, a weight that is not finite, asymmetry or a loop.
    """
    w = as_matrix(weights)
    if isinstance(w, FactoredMatrix):
        raise ProblemError("edge weights must be a plain or sparse matrix")
    raw = weights.toarray() if hasattr(weights, "toarray") else np.asarray(weights)
    if not np.array_equal(raw, raw.T):
        raise ProblemError("edge weights must be symmetric; give w + w.T for a triangle")
    if w.diagonal().any():
        i = int(np.flatnonzero(w.diagonal())[0])
        raise ProblemError(f"vertex {i} has a loop; a loop is never cut, so remove it")
    with np.errstate(over="ignore"):  # QUBO refuses what is not finite
        linear = -w.sum(axis=1, dtype=np.float64)
    return QUBO(w, linear)


def maxcut_weights(problem: Problem) -> npt.NDArray[np.float64]:
    """The edge weights, shape (n, n), of a QUBO that is a max-cut problem.

    That is: offset 0 and ``linear_i + Q_ii = -sum_{j != i} Q_ij`` within rounding. Raises
    `ProblemError` for any other problem.
    """
    if not isinstance(problem, QUBO):
        raise ProblemError(f"max-cut is a QUBO, not a {type(problem).__name__}")
    w = np.array(problem.dense(), dtype=np.float64)
    own = problem.diagonal() + problem.linear
    np.fill_diagonal(w, 0.0)
    off = np.abs(own + w.sum(axis=1)) > 1e-9 * (np.abs(own) + np.abs(w).sum(axis=1))
    if off.any() or problem.offset != 0:
        why = (
            f"its offset is {problem.offset:g}"
            if problem.offset
            else f"the field of variable {int(off.argmax())} is not what edges alone give"
        )
        raise ProblemError(f"this QUBO is not a max-cut problem: {why}; write .npz instead")
    return w


def cut_value(problem: Problem, x: npt.ArrayLike) -> float:
    """The weight of the edges between ``x = 0`` and ``x = 1``, for a QUBO from `maxcut_qubo`."""
    w = maxcut_weights(problem)
    xi = as_binary(x, problem.n)
    return float(w[np.ix_(xi == 1, xi == 0)].sum())
