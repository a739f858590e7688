"""A lower bound for an `MIQP` without a tree."""

from __future__ import annotations

import math
import time

import numpy as np

from optiprune.problems import MIQP, ProblemError

from .subset_relaxation import EIGEN_S, Scratch, relax_root, rounding, subset_form

__all__ = ["all_free", "subset_bound"]


def all_free(problem: MIQP) -> float:
    """The energy with all weights kept, a lower bound; -inf if it is unbounded."""
    try:
        return problem.energy(np.ones(problem.n, np.int8))
    except ProblemError:
        return -math.inf


def subset_bound(problem: MIQP, deadline: float) -> tuple[float, str]:
    """(bound, what gave it), by the time that `time.perf_counter` reaches ``deadline``."""
    n, k = problem.n, problem.k
    if k == 0:
        return problem.offset, "no weight kept"
    best, method = all_free(problem), "all weights free"
    if k == n or time.perf_counter() + 6.0 * EIGEN_S * n**3 > deadline:
        return best, method
    form = subset_form(problem)
    root = relax_root(form, Scratch(n), deadline=deadline)
    # rounding and the ridge, by the size of the weights of a good support
    x = np.zeros(n, np.int8)
    x[np.argsort(-np.abs(root.w), kind="stable")[:k]] = 1
    try:
        w = problem.weights(x)
    except ProblemError:
        return best, method
    value = form.offset + form.scale * root.bound - rounding(problem, w) - form.slack(w)
    return max((best, method), (value, "perspective relaxation"))
