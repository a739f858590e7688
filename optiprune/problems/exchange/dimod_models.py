"""dimod's binary and constrained quadratic models.

dimod's energy of a BINARY model is ``sum_i a_i x_i + sum_{i<j} b_ij x_i x_j + offset``, so
``a = diag(Q) + linear`` and ``b_ij = 2 Q_ij``. Both sides minimise and mean the same by x = 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optiprune.problems.base import Problem, QuadraticProblem
from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.linearise import constraint_rows
from optiprune.problems.miqp import MIQP

from .classify import from_rows

if TYPE_CHECKING:
    import dimod

__all__ = ["from_bqm", "from_cqm", "to_bqm", "to_cqm"]


def to_bqm(problem: Problem) -> dimod.BinaryQuadraticModel:
    """A QUBO as a BINARY `dimod.BinaryQuadraticModel` with variables 0 .. n-1, built from arrays.

    Raises `ProblemError` for a problem with constraints (`to_penalty_qubo` or `to_cqm`).
    """
    if not isinstance(problem, QUBO):
        raise ProblemError(
            f"a BQM has no constraints, so to_bqm takes a QUBO, not a {type(problem).__name__}; "
            "use to_penalty_qubo(problem).qubo, or to_cqm"
        )
    bqm: dimod.BinaryQuadraticModel = _objective(problem)
    return bqm


def from_bqm(bqm: Any, variable_order: Iterable[Hashable] | None = None) -> QUBO:
    """A QUBO from a BINARY or SPIN `dimod.BinaryQuadraticModel`; x_i = 1 is spin +1.

    Variable i of the QUBO is ``variable_order[i]``; by default 0 .. n-1 where those are the
    labels, and the order of ``bqm.variables`` otherwise.

    Raises `ProblemError` if ``variable_order`` is not a permutation of the variables.
    """
    order = _order(bqm.variables, variable_order)
    binary = bqm.change_vartype("BINARY", inplace=False)
    linear, (row, col, bias), offset = binary.to_numpy_vectors(variable_order=order)
    return QUBO(_matrix(len(order), row, col, bias), linear, float(offset))


def to_cqm(problem: Problem) -> dimod.ConstrainedQuadraticModel:
    """A `dimod.ConstrainedQuadraticModel`.

    Binary problems: variables 0 .. n-1; constraints ``"cardinality_g"``, or ``"upper_r"`` and
    ``"lower_r"`` (``"equal_r"`` for an equation). An MIQP has the binaries 0 .. n-1, the reals
    ``"w0"`` .. and the rows -M x <= w <= M x.

    Raises
    ------
    ProblemError
        For an MIQP with H != 0: dimod allows no products of real variables; and for an infinite M.
    """
    import dimod

    cqm: dimod.ConstrainedQuadraticModel
    cqm = dimod.ConstrainedQuadraticModel()  # type: ignore[no-untyped-call]
    if isinstance(problem, MIQP):
        _fill_miqp(cqm, problem)
        return cqm
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise ProblemError(f"to_cqm does not take a {type(problem).__name__}")
    cqm.set_objective(_objective(problem))
    rows, lower, upper = constraint_rows(problem)
    for r in range(rows.shape[0]):
        span = slice(rows.indptr[r], rows.indptr[r + 1])
        terms = list(zip(rows.indices[span].tolist(), rows.data[span].tolist(), strict=True))
        lo, up = float(lower[r]), float(upper[r])
        # a row without terms holds for every x (else the problem could not have been built)
        if not terms:
            continue
        if isinstance(problem, CardinalityQP):
            cqm.add_constraint_from_iterable(terms, "==", up, label=f"cardinality_{r}")
        elif lo == up:
            cqm.add_constraint_from_iterable(terms, "==", up, label=f"equal_{r}")
        else:
            if np.isfinite(up):
                cqm.add_constraint_from_iterable(terms, "<=", up, label=f"upper_{r}")
            if np.isfinite(lo):
                cqm.add_constraint_from_iterable(terms, ">=", lo, label=f"lower_{r}")
    return cqm


def from_cqm(
    cqm: Any, variable_order: Iterable[Hashable] | None = None
) -> QUBO | CardinalityQP | BudgetQP:
    """The problem of a CQM with binary variables and hard linear constraints.

    The type is the narrowest that fits: QUBO, CardinalityQP (equations that count every variable
    once), BudgetQP. Variable order as in `from_bqm`.

    Raises
    ------
    ProblemError
        On a variable that is not binary, a quadratic constraint or a soft one.
    """
    order = _order(cqm.variables, variable_order)
    at = {v: i for i, v in enumerate(order)}
    for v in order:
        if cqm.vartype(v).name != "BINARY":
            raise ProblemError(f"variable {v!r} is {cqm.vartype(v).name}; only BINARY is supported")
    n = len(order)
    linear = np.zeros(n)
    for v, bias in cqm.objective.iter_linear():
        linear[at[v]] += bias
    pairs = [(at[u], at[v], bias) for u, v, bias in cqm.objective.iter_quadratic()]
    row, col, bias = (np.array(c) for c in zip(*pairs, strict=True)) if pairs else ([], [], [])
    lower, upper, rows = [], [], []
    for label, constraint in cqm.constraints.items():
        lhs = constraint.lhs
        if not lhs.is_linear():
            raise ProblemError(f"constraint {label!r} is quadratic; only linear ones are supported")
        if lhs.is_soft():
            raise ProblemError(f"constraint {label!r} is soft; move its penalty to the objective")
        a = np.zeros(n)
        for v, b in lhs.iter_linear():
            a[at[v]] += b
        rhs = float(constraint.rhs) - float(lhs.offset)
        sense = constraint.sense.value
        lower.append(-np.inf if sense == "<=" else rhs)
        upper.append(np.inf if sense == ">=" else rhs)
        rows.append(a)
    A = np.array(rows).reshape(len(rows), n)
    q = _matrix(n, row, col, bias)
    offset = float(cqm.objective.offset)
    return from_rows(q, linear, offset, A, np.array(lower), np.array(upper))


def _objective(problem: QuadraticProblem) -> Any:
    import dimod

    q = problem.dense(np.float64)
    row, col = np.nonzero(np.triu(q, 1))
    own = problem.diagonal() + problem.linear
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        own, (row, col, 2.0 * q[row, col]), problem.offset, dimod.BINARY
    )


def _fill_miqp(cqm: Any, problem: MIQP) -> None:
    import dimod

    if np.any(problem.dense()):
        raise ProblemError(
            "dimod allows no products of real variables, so an MIQP with H != 0 has no CQM; use "
            "to_pyomo, or fix the weights and solve for the support as a CardinalityQP"
        )
    if not np.isfinite(problem.M).all():
        raise ProblemError("M must be finite for a CQM: give a bound on the weights")
    objective = dimod.QuadraticModel()
    n = problem.n
    objective.add_variables_from("BINARY", range(n))
    for i in range(n):
        bound = float(problem.M[i])
        objective.add_variable("REAL", f"w{i}", lower_bound=-bound, upper_bound=bound)
        objective.set_linear(f"w{i}", -float(problem.b[i]))
    objective.offset = problem.offset
    cqm.set_objective(objective)
    for i in range(n):
        bound, w = float(problem.M[i]), f"w{i}"
        cqm.add_constraint_from_iterable([(w, 1.0), (i, -bound)], "<=", 0.0, label=f"gate_up_{i}")
        cqm.add_constraint_from_iterable([(w, 1.0), (i, bound)], ">=", 0.0, label=f"gate_low_{i}")
    if n:
        ones = [(i, 1.0) for i in range(n)]
        cqm.add_constraint_from_iterable(ones, "==", problem.k, label="cardinality_0")


def _order(variables: Any, wanted: Iterable[Hashable] | None) -> list[Hashable]:
    labels = list(variables)
    if wanted is not None:
        order = list(wanted)
        if len(order) != len(labels) or set(order) != set(labels):
            raise ProblemError(f"variable_order must hold each of the {len(labels)} variables once")
        return order
    numbers = list(range(len(labels)))
    return list(numbers) if set(labels) == set(numbers) else labels


def _matrix(n: int, row: Any, col: Any, bias: Any) -> npt.NDArray[np.float64]:
    q = np.zeros((n, n))
    half = np.asarray(bias, dtype=np.float64) / 2
    np.add.at(q, (np.asarray(row, dtype=np.int64), np.asarray(col, dtype=np.int64)), half)
    return q + q.T
