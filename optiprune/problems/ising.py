"""Spins instead of bits: the same function over ``s`` in {-1, +1}, with ``x = (1 + s) / 2``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Problem
from .binary import QUBO, BudgetQP, CardinalityQP
from .errors import ProblemError
from .matrix import FactoredMatrix, as_matrix, as_number, as_vector, frozen

__all__ = ["Ising", "from_ising", "to_ising"]


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Ising:
    """``energy(s) = sum_{i<j} J_ij s_i s_j + h's + offset`` over spins s in {-1, +1}.

    s_i = +1 is x_i = 1 (keep). Each pair counts once.

    Parameters
    ----------
    J : (n, n) array-like, zero diagonal
        Symmetric, or upper triangular; both name the coupling of a pair by ``J[i, j]``, i < j.
        Stored symmetric, float64, read-only.
    h : (n,) array-like, optional
    offset : float

    Raises
    ------
    ProblemError
        On a wrong shape, an entry that is not finite, a diagonal (``s_i**2 = 1``: add it to the
        offset), or a J that is neither symmetric nor upper triangular.
    """

    J: npt.NDArray[np.float64]
    h: npt.NDArray[np.float64]
    offset: float

    def __init__(self, J: Any, h: npt.ArrayLike | None = None, offset: float = 0.0) -> None:
        if isinstance(J, FactoredMatrix):
            raise ProblemError("J must be a plain array; use FactoredMatrix.toarray()")
        raw = J.toarray() if hasattr(J, "toarray") else J
        try:
            a = np.array(raw, dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise ProblemError(f"J is not a matrix of numbers: {e}") from None
        half = as_matrix(a)  # checks shape and finiteness
        assert not isinstance(half, FactoredMatrix)
        on = np.flatnonzero(a.diagonal())
        if on.size:
            i = int(on[0])
            raise ProblemError(f"J[{i}, {i}] = {a[i, i]:g}: s_i**2 is 1, so add it to the offset")
        if not np.array_equal(a, a.T):
            if np.tril(a).any():
                raise ProblemError("J must be symmetric or upper triangular")
            a = a + a.T
        object.__setattr__(self, "offset", as_number("offset", offset))
        object.__setattr__(self, "J", frozen(a))
        object.__setattr__(self, "h", as_vector("h", h, a.shape[0]))

    @property
    def n(self) -> int:
        return int(self.h.shape[0])

    def energy(self, s: npt.ArrayLike) -> float:
        """Energy at spins s, shape (n,), every entry -1 or +1. Raises `ProblemError` otherwise."""
        v = np.asarray(s)
        if v.shape != (self.n,):
            raise ProblemError(f"s must have shape ({self.n},), got {v.shape}")
        ok = (v == 1) | (v == -1)
        if not ok.all():
            i = int(np.flatnonzero(~ok)[0])
            raise ProblemError(f"s must hold -1 and +1 only; s[{i}] = {v[i]!r}")
        f = v.astype(np.float64)
        return float(0.5 * (f @ self.J @ f) + self.h @ f) + self.offset


def to_ising(problem: Problem) -> Ising:
    """The `Ising` form of a QUBO: ``energy(2 x - 1)`` is the QUBO's energy at x.

    Only halvings, quarterings and sums: exact where the sums are (integers, say).

    Raises
    ------
    ProblemError
        For a problem with constraints; `to_penalty_qubo` makes it a QUBO first.
    """
    if not isinstance(problem, QUBO):
        hint = (
            "; turn it into a QUBO with to_penalty_qubo first"
            if isinstance(problem, CardinalityQP | BudgetQP)
            else ""
        )
        raise ProblemError(f"to_ising takes a QUBO, got {type(problem).__name__}{hint}")
    q = np.array(problem.dense(np.float64))
    own = problem.diagonal() + problem.linear
    np.fill_diagonal(q, 0.0)
    q *= 0.5  # 2 Q_ij x_i x_j = (Q_ij / 2) (1 + s_i)(1 + s_j)
    rows = q.sum(axis=1)
    return Ising(
        q, h=own / 2 + rows, offset=problem.offset + float(own.sum()) / 2 + float(rows.sum()) / 2
    )


def from_ising(ising: Ising) -> QUBO:
    """The QUBO with ``x = (1 + s) / 2``; the inverse of `to_ising`."""
    rows = ising.J.sum(axis=1)
    return QUBO(
        2.0 * ising.J,
        linear=2.0 * ising.h - 2.0 * rows,
        offset=ising.offset - float(ising.h.sum()) + float(rows.sum()) / 2,
    )
