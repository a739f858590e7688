"""Pyomo concrete models.

`to_pyomo` writes ``x`` (binaries 0 .. n-1), an objective ``objective`` and the constraints
``cardinality[g]`` or ``budget[r]``; an MIQP adds the weights ``w`` and the rows ``gate_up[i]``,
``gate_low[i]``. `from_pyomo` reads any model with binary variables, a quadratic objective and
linear constraints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from optiprune.problems.base import Problem, QuadraticProblem
from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.linearise import constraint_rows, linearise
from optiprune.problems.matrix import FloatArray
from optiprune.problems.miqp import MIQP

from .classify import from_rows

if TYPE_CHECKING:
    import pyomo.environ as pyo

__all__ = ["from_pyomo", "to_pyomo"]


def to_pyomo(
    problem: Problem,
    *,
    linearised: bool = False,
    method: Literal["fortet", "glover"] = "fortet",
) -> pyo.ConcreteModel:
    """A `pyomo.environ.ConcreteModel` of a problem, with a minimised objective.

    Parameters
    ----------
    linearised : replace products of binaries by helper columns ``y`` and rows ``product[r]``
        (`linearise`), for solvers such as HiGHS that take no quadratic integer model
    method : the linearisation

    Raises
    ------
    ProblemError
        For another problem type; for an MIQP with ``linearised=True`` (continuous products) or an
        infinite M (the big-M rows need a number).
    """
    import pyomo.environ as pyo

    model = pyo.ConcreteModel(name=type(problem).__name__)
    n = problem.n
    model.x = pyo.Var(range(n), domain=pyo.Binary)
    if isinstance(problem, MIQP):
        if linearised:
            raise ProblemError("an MIQP holds products of continuous weights: linearised=False")
        _fill_miqp(model, problem)
        return model
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise ProblemError(f"to_pyomo does not take a {type(problem).__name__}")
    x = [model.x[i] for i in range(n)]
    if linearised:
        _fill_linearised(model, problem, x, method)
    else:
        own = problem.diagonal() + problem.linear
        expr = _linear(own, x, problem.offset) + _products(2.0 * problem.dense(), x, x)
        model.objective = pyo.Objective(expr=expr, sense=pyo.minimize)
    rows, lower, upper = constraint_rows(problem)
    name = "cardinality" if isinstance(problem, CardinalityQP) else "budget"
    _add_rows(model, name, rows, x, lower, upper)
    return model


def from_pyomo(model: Any) -> QUBO | CardinalityQP | BudgetQP:
    """The problem of a Pyomo model; variable i is the i-th of its declared variables.

    Takes one active objective of degree <= 2 (a maximised one is negated) over binary variables
    (integer ones with bounds [0, 1] too), and linear constraints. Fixed variables count as the
    constants that they are, and are left out. The type is the narrowest that fits.

    Raises
    ------
    ProblemError
        On a continuous variable (a relaxation, an MIQP or a linearised model), bounds other than
        [0, 1], a higher degree, a nonlinear constraint, any other active component that restricts
        the model (SOS and logical constraints, disjunctions ...), a variable of a deactivated block
        or of another model, or not exactly one objective.
    """
    import pyomo.environ as pyo
    from pyomo.repn import generate_standard_repn

    _refuse_other_components(model)
    variables = _free_binaries(model)
    at = {id(v): i for i, v in enumerate(variables)}
    n = len(variables)

    def index(v: Any) -> int:
        i = at.get(id(v))
        if i is None:
            raise ProblemError(
                f"variable {v.name} belongs to a deactivated block or to another model; fix it, or "
                "activate its block"
            )
        return i

    objectives = list(model.component_data_objects(pyo.Objective, active=True))
    if len(objectives) != 1:
        raise ProblemError(f"the model must have one active objective, it has {len(objectives)}")
    repn = generate_standard_repn(objectives[0].expr, quadratic=True)
    if repn.nonlinear_expr is not None:
        raise ProblemError("the objective is not a polynomial of degree <= 2")
    sign = 1.0 if objectives[0].sense == pyo.minimize else -1.0
    linear, q = np.zeros(n), np.zeros((n, n))
    for coefficient, v in zip(repn.linear_coefs, repn.linear_vars, strict=True):
        linear[index(v)] += sign * coefficient
    for coefficient, (u, v) in zip(repn.quadratic_coefs, repn.quadratic_vars, strict=True):
        q[index(u), index(v)] += sign * coefficient
    rows, lower, upper = [], [], []
    for c in model.component_data_objects(pyo.Constraint, active=True, descend_into=True):
        body = generate_standard_repn(c.body, quadratic=False)
        if body.nonlinear_expr is not None:
            raise ProblemError(f"constraint {c.name} is not linear")
        a = np.zeros(n)
        for coefficient, v in zip(body.linear_coefs, body.linear_vars, strict=True):
            a[index(v)] += coefficient
        shift = float(body.constant)
        low, high = pyo.value(c.lower), pyo.value(c.upper)
        rows.append(a)
        lower.append(-np.inf if low is None else low - shift)
        upper.append(np.inf if high is None else high - shift)
    A = np.array(rows, dtype=np.float64).reshape(len(rows), n)
    offset = sign * float(repn.constant)
    return from_rows(
        q, linear, offset, A, np.array(lower, dtype=float), np.array(upper, dtype=float)
    )


def _refuse_other_components(model: Any) -> None:
    """Only what `from_pyomo` reads may be active: the rest would be dropped without a word."""
    import pyomo.environ as pyo
    from pyomo.core.base.component import ActiveComponent

    known = (pyo.Block, pyo.Var, pyo.Objective, pyo.Constraint, pyo.Suffix)
    for c in model.component_objects(active=True, descend_into=True):
        members = c.values() if c.is_indexed() else [c]
        if (
            isinstance(c, ActiveComponent)
            and c.ctype not in known
            and any(member.active for member in members)
        ):
            raise ProblemError(
                f"{c.name} is a {c.ctype.__name__}, which cannot be read; write it as linear "
                "constraints, or deactivate it"
            )


def _free_binaries(model: Any) -> list[Any]:
    import pyomo.environ as pyo

    variables = []
    for v in model.component_data_objects(pyo.Var, active=True, descend_into=True):
        if v.fixed:
            if v.value is None:
                raise ProblemError(f"variable {v.name} is fixed, but has no value")
            continue
        if not v.is_integer() and not v.is_binary():
            raise ProblemError(
                f"variable {v.name} is not binary; only binary quadratic models can be read"
            )
        if v.bounds != (0, 1):
            raise ProblemError(
                f"variable {v.name} is not binary: its bounds are {v.bounds}; use [0, 1], and "
                "fix() for one that cannot move"
            )
        variables.append(v)
    return variables


def _linear(c: npt.ArrayLike, variables: list[Any], constant: float = 0.0) -> Any:
    from pyomo.core.expr.numeric_expr import LinearExpression

    return LinearExpression(
        constant=float(constant),
        linear_coefs=np.asarray(c, dtype=np.float64).tolist(),
        linear_vars=list(variables),
    )


def _products(q: FloatArray, left: list[Any], right: list[Any]) -> Any:
    """``sum_{i<j} q_ij left_i right_j`` over the entries that are not zero."""
    import pyomo.environ as pyo

    row, col = np.nonzero(np.triu(q, 1))
    coefficients = q[row, col].astype(np.float64).tolist()
    entries = zip(coefficients, row.tolist(), col.tolist(), strict=True)
    return pyo.quicksum((c * left[i] * right[j] for c, i, j in entries))


def _add_rows(
    model: Any,
    name: str,
    rows: sp.csr_matrix,
    variables: list[Any],
    lower: npt.NDArray[np.float64],
    upper: npt.NDArray[np.float64],
) -> None:
    """An indexed constraint ``name[r]`` for each row that has a term and a finite limit."""
    import pyomo.environ as pyo

    index = [
        r
        for r in range(rows.shape[0])
        if rows.indptr[r] < rows.indptr[r + 1] and (np.isfinite(lower[r]) or np.isfinite(upper[r]))
    ]

    def rule(_: Any, r: int) -> Any:
        span = slice(rows.indptr[r], rows.indptr[r + 1])
        body = _linear(rows.data[span], [variables[i] for i in rows.indices[span]])
        low = float(lower[r]) if np.isfinite(lower[r]) else None
        high = float(upper[r]) if np.isfinite(upper[r]) else None
        if low is not None and low == high:
            return (body, low)
        return (low, body, high)

    if index:
        model.add_component(name, pyo.Constraint(index, rule=rule))


def _fill_linearised(
    model: Any, problem: QuadraticProblem, x: list[Any], method: Literal["fortet", "glover"]
) -> None:
    import pyomo.environ as pyo

    lm = linearise(problem, method=method)
    n = lm.n_original
    extra = range(lm.n_cols - n)
    bounds = list(zip(lm.col_lower[n:].tolist(), lm.col_upper[n:].tolist(), strict=True))
    model.y = pyo.Var(extra, domain=pyo.Reals, bounds=lambda _, p: bounds[p])
    z = [*x, *(model.y[p] for p in extra)]
    model.objective = pyo.Objective(expr=_linear(lm.c, z, lm.offset), sense=pyo.minimize)
    own = constraint_rows(problem)[0].shape[0]
    _add_rows(model, "product", lm.A[own:], z, lm.row_lower[own:], lm.row_upper[own:])


def _fill_miqp(model: Any, problem: MIQP) -> None:
    import pyomo.environ as pyo

    if not np.isfinite(problem.M).all():
        raise ProblemError("M must be finite for a Pyomo model: the rows -M x <= w <= M x need it")
    n = problem.n
    bound = problem.M.tolist()
    model.w = pyo.Var(range(n), domain=pyo.Reals, bounds=lambda _, i: (-bound[i], bound[i]))
    w = [model.w[i] for i in range(n)]
    h = problem.dense().astype(np.float64)
    half = (0.5 * h.diagonal()).tolist()
    squares = pyo.quicksum(half[i] * w[i] ** 2 for i in range(n) if half[i])
    expr = _linear(-problem.b, w, problem.offset) + squares + _products(h, w, w)
    model.objective = pyo.Objective(expr=expr, sense=pyo.minimize)
    model.gate_up = pyo.Constraint(range(n), rule=lambda m, i: m.w[i] <= bound[i] * m.x[i])
    model.gate_low = pyo.Constraint(range(n), rule=lambda m, i: m.w[i] >= -bound[i] * m.x[i])
    if n:
        model.cardinality = pyo.Constraint(
            [0], rule=lambda m, _: pyo.quicksum(m.x[i] for i in range(n)) == problem.k
        )
