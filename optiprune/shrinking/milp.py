"""A mixed-integer linear program in arrays, solved by HiGHS or by any solver that Pyomo knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from .errors import ShrinkingError

__all__ = ["MilpBuilder", "MilpSolution", "solve_milp"]

FloatArray = npt.NDArray[np.float64]


@dataclass(slots=True)
class MilpBuilder:
    """Variables and rows, added one by one."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integral: list[bool] = field(default_factory=list)
    rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)

    def variable(self, cost: float = 0.0, upper: float = np.inf, *, binary: bool = False) -> int:
        """A variable from 0 to ``upper``; its number."""
        self.cost.append(cost)
        self.upper.append(1.0 if binary else upper)
        self.integral.append(binary)
        return len(self.cost) - 1

    def row(self, terms: Mapping[int, float], lower: float, upper: float) -> None:
        self.rows.append((dict(terms), lower, upper))

    def matrix(self) -> tuple[sp.csr_matrix, FloatArray, FloatArray]:
        at = [(i, j, v) for i, (terms, _, _) in enumerate(self.rows) for j, v in terms.items()]
        i, j, v = (np.array(x) for x in zip(*at, strict=True)) if at else ([], [], [])
        A = sp.csr_matrix((v, (i, j)), shape=(len(self.rows), len(self.cost)))
        low = np.array([r[1] for r in self.rows], dtype=np.float64)
        high = np.array([r[2] for r in self.rows], dtype=np.float64)
        return A, low, high


@dataclass(frozen=True, slots=True, eq=False)
class MilpSolution:
    """Attributes: x, its value, the proven bound, and whether both are equal within the gap."""

    x: FloatArray
    value: float
    bound: float
    optimal: bool


def solve_milp(
    program: MilpBuilder, *, solver: str = "highs", seconds: float = 60.0, gap: float = 1e-4
) -> MilpSolution | None:
    """The least cost, or None if nothing fits all rows.

    Parameters
    ----------
    solver : "highs", or a name for Pyomo's ``SolverFactory`` ("appsi_highs", "cbc", "glpk",
        "gurobi", "scip" ...)
    seconds : after which the best found so far is taken
    gap : relative, at which it counts as optimal

    Raises
    ------
    ShrinkingError
        The solver is not there, or ended without an answer.
    """
    if solver == "highs":
        return _highs(program, seconds, gap)
    return _pyomo(program, solver, seconds, gap)


def _highs(program: MilpBuilder, seconds: float, gap: float) -> MilpSolution | None:
    A, low, high = program.matrix()
    found = milp(
        np.array(program.cost),
        constraints=LinearConstraint(A, low, high),
        integrality=np.array(program.integral, dtype=np.int64),
        bounds=Bounds(0.0, np.array(program.upper)),
        options={"time_limit": seconds, "mip_rel_gap": gap},
    )
    if found.status == 2:
        return None
    if found.x is None:
        raise ShrinkingError(
            f"HiGHS found no widths within {seconds:g} s: {found.message}; allow more seconds, or "
            "fewer widths (a larger multiple)"
        )
    bound = found.mip_dual_bound if found.mip_dual_bound is not None else found.fun
    return MilpSolution(np.asarray(found.x), float(found.fun), float(bound), found.status == 0)


def _pyomo(program: MilpBuilder, solver: str, seconds: float, gap: float) -> MilpSolution | None:
    import pyomo.environ as pyo
    from pyomo.opt import TerminationCondition

    factory: Any = pyo.SolverFactory(solver)
    try:
        there = factory is not None and factory.available(exception_flag=False)
    except Exception:  # what an unknown plug-in raises differs
        there = False
    if not there:
        raise ShrinkingError(
            f"Pyomo has no solver {solver!r} on this machine; install it, or use 'highs'"
        )
    model = pyo.ConcreteModel()
    n = range(len(program.cost))
    model.x = pyo.Var(n, within=pyo.NonNegativeReals)
    for i in n:
        if program.integral[i]:
            model.x[i].domain = pyo.Binary
        elif np.isfinite(program.upper[i]):
            model.x[i].setub(program.upper[i])
    model.cost = pyo.Objective(expr=sum(c * model.x[i] for i, c in enumerate(program.cost)))
    model.rows = pyo.ConstraintList()
    for terms, low, high in program.rows:
        body = sum(v * model.x[j] for j, v in terms.items())
        ends = (low if np.isfinite(low) else None, high if np.isfinite(high) else None)
        model.rows.add((ends[0], body, ends[1]))
    result = factory.solve(model, load_solutions=False)
    ended = result.solver.termination_condition
    if ended == TerminationCondition.infeasible:
        return None
    if not len(result.solution) and ended != TerminationCondition.optimal:
        raise ShrinkingError(f"{solver} ended without widths: {ended}")
    model.solutions.load_from(result)
    x = np.array([pyo.value(model.x[i]) for i in n])
    value = float(np.dot(program.cost, x))
    optimal = ended == TerminationCondition.optimal
    return MilpSolution(x, value, value if optimal else -np.inf, optimal)
