"""The identity of a problem: a hash of its numbers, whatever file they came from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.bench.errors import BenchError
from optiprune.problems import MIQP, BudgetQP, CardinalityQP, FactoredMatrix, Problem
from optiprune.problems.base import QuadraticProblem

__all__ = ["digest"]

_BLOCK = 1 << 22


def digest(problem: Problem) -> str:
    """SHA-256 (hex) of type, size and coefficients in float64.

    Linear terms are added to the diagonal first (x**2 = x), so that a problem and its copy in a
    format without linear terms are the same. Raises `BenchError` for a type that is not known.
    """
    h = hashlib.sha256()
    kind = type(problem).__name__
    matrix: Any
    rest: tuple[Any, ...] = ()
    if isinstance(problem, MIQP):
        matrix, linear = problem.H, problem.b
        rest = (problem.k, problem.M)
    elif isinstance(problem, QuadraticProblem):
        matrix, linear = problem.Q, problem.linear + problem.diagonal()
        if isinstance(problem, CardinalityQP):
            rest = (problem.k, problem.groups)
        elif isinstance(problem, BudgetQP):
            rows = problem.A.toarray() if hasattr(problem.A, "toarray") else problem.A
            rest = (rows, problem.upper, problem.lower)
    else:
        raise BenchError(f"cannot hash a {kind}: no such problem type is known here")
    factored = isinstance(matrix, FactoredMatrix)
    head = {"type": kind, "n": problem.n, "storage": "factor" if factored else "dense"}
    h.update(json.dumps(head, sort_keys=True).encode())
    if isinstance(matrix, FactoredMatrix):
        _add(h, matrix.factor)
        _add(h, matrix.diagonal)
    else:
        own = 0 if isinstance(problem, MIQP) else 1
        for i in range(problem.n):
            _add(h, matrix[i, i + own :])
    for a in (linear, np.float64(problem.offset), *rest):
        _add(h, a)
    return h.hexdigest()


def _add(h: hashlib._Hash, a: npt.ArrayLike) -> None:
    flat = np.asarray(a).reshape(-1)
    for at in range(0, len(flat), _BLOCK):
        # + 0.0 turns a negative zero into zero
        h.update((np.asarray(flat[at : at + _BLOCK], dtype="<f8") + 0.0).tobytes())
