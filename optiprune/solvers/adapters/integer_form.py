"""A linearised problem in whole numbers, for solvers that know nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.problems.linearise import LinearModel
from optiprune.solvers.errors import UnsupportedProblemError

__all__ = ["IntegerForm", "integer_form"]

_Ints = npt.NDArray[np.int64]
_EPS = float(np.finfo(np.float64).eps)

# Sums of |coefficients| stay below 2**50: int64 has room for what a solver adds up, and a bound
# passes through a float64 as it is.
_BITS = 50


@dataclass(frozen=True, slots=True, eq=False)
class IntegerForm:
    """min ``c'z`` over binaries z with ``lower <= A z <= upper``, all of them whole numbers.

    Attributes
    ----------
    c : (n_cols,) int64
    indptr, indices, data : the rows as in CSR, int64
    lower, upper : (n_rows,) int64, finite
    factor : c is the real cost times this, rounded
    margin : what rounding may have added to the real cost of any z, in units of c
    """

    c: _Ints
    indptr: _Ints
    indices: _Ints
    data: _Ints
    lower: _Ints
    upper: _Ints
    factor: float
    margin: float

    def bound(self, value: float) -> float:
        """A lower bound on the real cost of every feasible z, from one on ``c'z``."""
        return (value - self.margin) / self.factor


def integer_form(model: LinearModel) -> IntegerForm:
    """Round a model whose columns are all binary, without losing a feasible point.

    Costs are multiplied by a power of two, which is exact, and rounded; the sum of what rounding
    can have added is the ``margin``. Each row is rounded likewise and its limits are widened by
    what rounding can have changed, so that whatever met the row still does.

    Raises `UnsupportedProblemError` for a model with columns that are not binary.
    """
    if (model.col_lower != 0).any() or (model.col_upper != 1).any():
        raise UnsupportedProblemError(
            "only models with binary columns can be written in whole numbers; "
            "use optiprune.problems.linearise(problem, method='fortet')"
        )
    factor = _factor(float(np.abs(model.c).sum()))
    exact = model.c * factor
    c = np.rint(exact)
    # the least that (exact - c)'z can be, with room for the sums in float64
    lost = float(np.maximum(c - exact, 0.0).sum())
    margin = lost * (1 + 1e-9) + 4 * _EPS * float(np.abs(exact).sum())
    A = model.A.tocsr()
    data = np.zeros(A.nnz)
    lower, upper = np.zeros(A.shape[0]), np.zeros(A.shape[0])
    for r in range(A.shape[0]):
        part = slice(A.indptr[r], A.indptr[r + 1])
        row, limits = A.data[part], (model.row_lower[r], model.row_upper[r])
        if (row == np.rint(row)).all() and np.abs(row).sum() < 2**20:
            data[part], most, slack, scale = row, float(np.abs(row).sum()), 0.0, 1.0
        else:
            scale = _factor(float(np.abs(row).sum()))
            data[part] = np.rint(row * scale)
            most = float(np.abs(data[part]).sum())
            slack = float(np.abs(row * scale - data[part]).sum()) + 4 * _EPS * most
        # a limit beyond all sums is as good as none, and stays in range
        with np.errstate(over="ignore"):
            least, largest = np.multiply(limits, scale)
        lower[r] = min(max(np.ceil(least - slack), -most - 1), most + 1)
        upper[r] = min(max(np.floor(largest + slack), -most - 1), most + 1)
    return IntegerForm(
        c=c.astype(np.int64),
        indptr=A.indptr.astype(np.int64),
        indices=A.indices.astype(np.int64),
        data=data.astype(np.int64),
        lower=lower.astype(np.int64),
        upper=upper.astype(np.int64),
        factor=factor,
        margin=margin,
    )


def _factor(total: float) -> float:
    """The power of two that brings a sum of magnitudes to 2**50 or just below; 1 for zero."""
    if total == 0.0:
        return 1.0
    return float(2.0 ** min(max(_BITS - math.frexp(total)[1], -1000), 1000))
