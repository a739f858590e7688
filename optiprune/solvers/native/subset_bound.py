"""A lower bound for an `MIQP` without a tree."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri

from optiprune.problems import MIQP, ProblemError
from optiprune.problems.boxqp import box_minimum

from .subset_relaxation import (
    EIGEN_S,
    ScaledSubset,
    Scratch,
    relax_root,
    scaled_subset,
    subset_form,
)

__all__ = ["all_free", "subset_bound"]

# ridges tried until H is definite, over what rounding alone asks for
_RIDGES = (0.0, 1.0, 1e2, 1e4)

_Array = npt.NDArray[np.float64]


def all_free(problem: MIQP) -> float:
    """A lower bound from the energy with all weights kept; -inf if there is none. O(n^3).

    That energy itself would not do where H is nearly singular: directions that `MIQP.weights`
    leaves out among all weights may be of use to some of them.
    """
    s = scaled_subset(problem)
    if s is None:
        return -math.inf
    if s.n == 0:
        return s.offset
    for share in _RIDGES:
        ridge = share * s.floor
        H = s.with_ridge(ridge)
        try:
            L = cholesky(H, lower=True, check_finite=False)
        except LinAlgError:
            continue
        # the least eigenvalue is at least 1 / trace(H^-1)
        least = 1.0 / float(np.trace(dpotri(L, lower=1)[0]))
        if ridge > 0.0 or least > s.floor:
            break
    else:
        return -math.inf
    margins = s.margins(least if ridge == 0.0 else 0.0, ridge)
    if margins is None:
        return -math.inf
    stretch, shift = margins
    y = solve_triangular(L, s.b, lower=True, check_finite=False)
    value = -0.5 * float(y @ y)
    if np.isfinite(s.M).all():
        value = max(value, _tangent(H, s))
    return s.offset + s.scale * (stretch * value - shift)


def _tangent(H: _Array, s: ScaledSubset) -> float:
    """The least value, within the bounds, of the tangent at weights that are about the best."""
    try:
        u = box_minimum(H, s.b, s.M)
    except ProblemError:
        return -math.inf
    g = H @ u - s.b
    return float(-0.5 * u @ (g + s.b) - np.abs(g) @ s.M)


def subset_bound(problem: MIQP, deadline: float) -> tuple[float, str]:
    """(bound, what gave it), by the time that `time.perf_counter` reaches ``deadline``."""
    n, k = problem.n, problem.k
    if k == 0:
        return problem.offset, "no weight kept"
    if k == n:
        try:
            return problem.energy(np.ones(n, np.int8)), "all weights kept"
        except ProblemError:
            return -math.inf, "all weights kept"
    best, method = all_free(problem), "all weights free"
    if time.perf_counter() + 6.0 * EIGEN_S * n**3 > deadline:
        return best, method
    form = subset_form(problem)
    if form is None:
        return best, method
    root = relax_root(form, Scratch(n), deadline=deadline)
    return max((best, method), (form.outward(root.bound), "perspective relaxation"))
