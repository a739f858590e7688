"""The narrowest problem type that a quadratic form with linear rows fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP

__all__ = ["from_rows"]


def from_rows(
    Q: Any,
    linear: npt.ArrayLike,
    offset: float,
    A: npt.NDArray[np.float64],
    lower: npt.NDArray[np.float64],
    upper: npt.NDArray[np.float64],
) -> QUBO | CardinalityQP | BudgetQP:
    """A QUBO without rows; a CardinalityQP if the rows are equations that count each variable
    exactly once (coefficients 0 and 1, whole right-hand sides); a BudgetQP otherwise.

    A has shape (m, n). Raises what the constructors raise.
    """
    if A.shape[0] == 0:
        return QUBO(Q, linear, offset)
    counts_each_once = bool(((A == 0) | (A == 1)).all() and (A.sum(axis=0) == 1).all())
    if (
        counts_each_once
        and A.shape[1] > 0
        and np.array_equal(lower, upper)
        and np.isfinite(lower).all()
        and np.array_equal(lower, np.rint(lower))
    ):
        return CardinalityQP(Q, linear, offset, k=lower, groups=A.argmax(axis=0))
    return BudgetQP(Q, linear, offset, A=A, upper=upper, lower=lower)
