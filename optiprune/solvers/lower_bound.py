"""A proven lower bound for any problem, so that every answer can carry a gap."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem
from optiprune.problems.bounds import energy_range

from .base import Watch
from .errors import UnsupportedProblemError
from .stop import Limits

__all__ = ["LowerBound", "bound"]

# HiGHS's convex QP takes about this many seconds, over n^3, and cannot be relied on to stop early
_HIGHS_S = 2e-6


@dataclass(frozen=True, slots=True)
class LowerBound:
    """No feasible assignment has an energy below ``value``.

    Attributes
    ----------
    value : offset included
    method : what gave it
    seconds : wall-clock time of the whole call
    """

    value: float
    method: str
    seconds: float

    def gap(self, energy: float) -> float:
        """``(energy - value) / max(|energy|, 1e-12)``, as `Solution.gap`; never negative."""
        return max(0.0, energy - self.value) / max(abs(energy), 1e-12)


def bound(problem: Problem, *, time_limit: float = 10.0) -> LowerBound:
    """The best lower bound that ``time_limit`` allows; valid whenever it stops.

    `QUBO` and `CardinalityQP`: the sum of the least terms; then continuous relaxations of convex
    forms, by the tangent at their minimum: diagonal dominance where an eigenvalue would take too
    long, else spectral shifts and the diagonal of a semidefinite programme (see
    `optiprune.solvers.native.convexify`). `BudgetQP`: the same without its rows, and the convex
    relaxation with them by HiGHS. `MIQP`: all weights free, whatever time that takes (O(n^3)); then
    the perspective relaxation (see `optiprune.solvers.native.subset_kernels`). -inf if no bound
    holds: weights that H does not see and M does not bound, or a singular H with M for only some.

    Parameters
    ----------
    time_limit : seconds, > 0; about n^3 * 1e-7 allow all of it for n variables

    Raises
    ------
    UnsupportedProblemError
        For another type of problem.
    ValueError
        If the time limit is not positive.
    """
    # numba and highspy load when a bound is asked for, not with the package
    from .adapters.relaxation import relaxation_bound
    from .native.instance import OutOfTime, build_instance
    from .native.relaxation import convex_forms, tangent_bound
    from .native.subset_bound import subset_bound

    if not time_limit > 0:
        raise ValueError(f"time_limit must be > 0 seconds, got {time_limit!r}")
    watch = Watch(Limits(time_s=time_limit))
    if isinstance(problem, MIQP):
        value, method = subset_bound(problem, watch.start + time_limit)
        return LowerBound(value, method, watch.elapsed)
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise UnsupportedProblemError(
            f"no bound is known for {type(problem).__name__}; it takes QUBO, CardinalityQP, "
            "BudgetQP and MIQP"
        )
    best, method = energy_range(problem)[0], "sum of least terms"
    deadline = watch.start + time_limit
    if isinstance(problem, BudgetQP) and _HIGHS_S * problem.n**3 < time_limit:
        value = relaxation_bound(problem, time_limit_s=watch.time_left)
        if value > best:
            best, method = value, "convex relaxation with the budgets"
    try:
        inst = build_instance(problem, "float64", watch)
        for form in convex_forms(inst, np.asarray(problem.diagonal()), deadline=deadline):
            value = tangent_bound(form, deadline=deadline) + problem.offset
            if value > best:
                best, method = value, form.method
            if time.perf_counter() > deadline:
                break
    except OutOfTime:
        pass
    assert math.isfinite(best)
    return LowerBound(float(best), method, watch.elapsed)
