"""Multiple-choice knapsack: one choice for every item, least cost, total weight within a budget.

    min sum_l sum_j c_lj x_lj   subject to   sum_j x_lj = 1 for every l,   sum w_lj x_lj <= W,

x binary (Sinha & Zoltners 1979). Items are layers and choices their densities. HiGHS solves it by
branch and cut; what it returns is summed up again in exact arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from optiprune.problems.linearise import LinearModel
from optiprune.solvers.adapters.highs_run import fill_milp, new_highs, run_highs, set_option

from .errors import AllocationError

__all__ = ["KnapsackSolution", "solve_knapsack"]

_Vector = npt.NDArray[np.float64]

# HiGHS compares costs by absolute tolerances of about 1e-7: with the largest spread of an item at
# this, they are 1e-10 of it
_COST_SCALE = 1e3
_PROOF = 1e-8  # of the largest spread, how far the bound may stay below the cost
# assignments that HiGHS let pass by its tolerance on the budget, refused one by one
_REFUSALS = 100


@dataclass(frozen=True, slots=True, eq=False)
class KnapsackSolution:
    """A proven optimum.

    Attributes
    ----------
    choice : (items,) int64, the choice taken for each item
    cost, weight : of these choices, summed in float64 with a single rounding
    bound : proven lower bound on the cost of every assignment, at most ``cost``
    nodes : of the branch and bound; 0 where no search was needed
    """

    choice: npt.NDArray[np.int64]
    cost: float
    weight: float
    bound: float
    nodes: int


def solve_knapsack(
    costs: Sequence[npt.ArrayLike], weights: Sequence[npt.ArrayLike], budget: float
) -> KnapsackSolution:
    """Choose one entry of every item.

    Parameters
    ----------
    costs, weights : for each item an array (choices,); finite. Items may have different numbers of
        choices. Weights may be 0 or negative.
    budget : finite; the total weight may reach it, and never exceeds it by a rounding error

    Returns
    -------
    KnapsackSolution
        Equal arguments give equal choices. Among choices of an item that cost the same the lightest
        is taken, and the first of those that weigh the same.

    Raises
    ------
    AllocationError
        No entries for an item, shapes that differ, values that are not finite; or even the
        lightest choices weigh more than the budget. Also if HiGHS ends without a proof.
    """
    c, w = _checked(costs, weights, budget)
    lightest = _exact([float(item.min()) for item in w])
    if lightest > Fraction(budget):
        raise AllocationError(
            f"the lightest choices of the {len(w)} items weigh {float(lightest):.12g} together, "
            f"more than the budget of {budget:.12g}; raise the budget or offer lighter choices"
        )
    kept = [_undominated(ci, wi) for ci, wi in zip(c, w, strict=True)]
    cheapest = [int(k[-1]) for k in kept]
    if _fits(w, cheapest, budget):
        return _solution(c, w, cheapest, None, 0)
    return _branch_and_cut(c, w, kept, budget)


def _branch_and_cut(
    c: list[_Vector], w: list[_Vector], kept: list[npt.NDArray[np.int64]], budget: float
) -> KnapsackSolution:
    item = np.repeat(np.arange(len(c)), [len(k) for k in kept])
    # every item less its lightest choice: small numbers, so that little is lost to tolerances
    base = np.array([w[i][k[0]] for i, k in enumerate(kept)])
    extra = np.concatenate([w[i][k] - base[i] for i, k in enumerate(kept)])
    room = float(Fraction(budget) - _exact(base))
    unit = float(extra.max())
    least = np.array([c[i][k[-1]] for i, k in enumerate(kept)])
    above = np.concatenate([c[i][k] - least[i] for i, k in enumerate(kept)])
    spread = float(above.max()) / _COST_SCALE
    one_each = sp.csr_matrix((np.ones(item.size), (item, np.arange(item.size))))
    rows = [one_each, sp.csr_matrix(extra[None, :] / unit)]
    ones = np.ones(len(c))
    low, high = np.append(ones, -math.inf), np.append(ones, room / unit)
    starts = np.concatenate([[0], np.cumsum([len(k) for k in kept])[:-1]])
    nodes = 0
    for _ in range(_REFUSALS):
        x, bound, visited = _run(above / spread, sp.vstack(rows, format="csr"), low, high)
        nodes += visited
        taken = [int(np.argmax(x[s : s + len(k)])) for s, k in zip(starts, kept, strict=True)]
        choice = [int(k[j]) for k, j in zip(kept, taken, strict=True)]
        if _fits(w, choice, budget):
            floor = bound * spread + math.fsum(least)
            return _solution(c, w, choice, (floor, _PROOF * spread * _COST_SCALE), nodes)
        # over the budget by less than HiGHS sees: this assignment is out, all others stay
        cut = np.zeros(item.size)
        cut[starts + np.array(taken)] = 1.0
        rows.append(sp.csr_matrix(cut[None, :]))
        low, high = np.append(low, -math.inf), np.append(high, len(c) - 1.0)
    raise AllocationError(
        f"{_REFUSALS} assignments in a row exceeded the budget of {budget:.12g} by less than "
        "the solver's tolerance; give whole numbers, or a slightly smaller budget"
    )


def _run(
    cost: _Vector, A: sp.csr_matrix, low: _Vector, high: _Vector
) -> tuple[_Vector, float, int]:
    """(solution, bound, nodes) of the binary program, which has a solution."""
    n = cost.shape[0]
    model = LinearModel(
        c=cost,
        offset=0.0,
        A=A,
        row_lower=low,
        row_upper=high,
        col_lower=np.zeros(n),
        col_upper=np.ones(n),
        integrality=np.ones(n, np.int8),
        n_original=n,
        pairs=np.zeros((0, 2), np.int64),
        coupling=sp.csr_matrix((n, n)),
    )
    h = new_highs()
    fill_milp(h, model)
    for name, value in (
        ("threads", 1),
        ("random_seed", 0),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", 0.0),
        ("mip_feasibility_tolerance", 1e-10),
        ("primal_feasibility_tolerance", 1e-10),
        ("dual_feasibility_tolerance", 1e-10),
    ):
        set_option(h, name, value)
    if run_highs(h, h.cancelSolve):
        raise KeyboardInterrupt
    status = h.getModelStatus()
    if status.name != "kOptimal":
        raise AllocationError(
            f"HiGHS ended without an optimum of the knapsack: {h.modelStatusToString(status)}"
        )
    info = h.getInfo()
    bound = min(float(info.mip_dual_bound), float(info.objective_function_value))
    return np.asarray(h.getSolution().col_value), bound, max(0, int(info.mip_node_count))


def _solution(
    c: list[_Vector],
    w: list[_Vector],
    choice: list[int],
    proof: tuple[float, float] | None,
    nodes: int,
) -> KnapsackSolution:
    cost = math.fsum(ci[j] for ci, j in zip(c, choice, strict=True))
    weight = math.fsum(wi[j] for wi, j in zip(w, choice, strict=True))
    bound = cost
    if proof is not None:
        bound, tolerance = min(cost, proof[0]), proof[1]
        if cost - bound > tolerance:
            raise AllocationError(
                f"HiGHS claims an optimum of {cost:.12g} but proves only {bound:.12g}"
            )
    return KnapsackSolution(np.array(choice, dtype=np.int64), cost, weight, bound, nodes)


def _undominated(cost: _Vector, weight: _Vector) -> npt.NDArray[np.int64]:
    """Choices that no other beats in both, by rising weight and falling cost."""
    order = np.lexsort((np.arange(cost.size), cost, weight))
    best = np.minimum.accumulate(cost[order])
    new = np.concatenate([[True], best[1:] < best[:-1]])
    return order[new]


def _exact(numbers: Sequence[float] | _Vector) -> Fraction:
    return sum((Fraction(float(v)) for v in numbers), Fraction(0))


def _fits(weights: list[_Vector], choice: list[int], budget: float) -> bool:
    return _exact([w[j] for w, j in zip(weights, choice, strict=True)]) <= Fraction(budget)


def _checked(
    costs: Sequence[npt.ArrayLike], weights: Sequence[npt.ArrayLike], budget: float
) -> tuple[list[_Vector], list[_Vector]]:
    c = [np.asarray(v, dtype=np.float64) for v in costs]
    w = [np.asarray(v, dtype=np.float64) for v in weights]
    if len(c) != len(w):
        raise AllocationError(f"costs of {len(c)} items but weights of {len(w)}")
    for i, (ci, wi) in enumerate(zip(c, w, strict=True)):
        if ci.ndim != 1 or ci.shape != wi.shape or ci.size == 0:
            raise AllocationError(
                f"item {i}: costs and weights must be one array each of at least one choice, got "
                f"shapes {ci.shape} and {wi.shape}"
            )
        if not (np.isfinite(ci).all() and np.isfinite(wi).all()):
            raise AllocationError(f"item {i}: costs and weights must be finite")
    if not math.isfinite(budget):
        raise AllocationError(f"the budget must be finite, got {budget!r}")
    return c, w
