"""Budgets in any unit: back ends with absolute tolerances see rows near 1, limits widened."""

from __future__ import annotations

import highspy
import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import QUBO, BudgetQP, CardinalityQP, InfeasibleProblemError
from optiprune.problems.linearise import linearise
from optiprune.solvers import SolverError, Status
from optiprune.solvers.adapters.highs_run import fill_milp, new_highs, require_ok
from optiprune.solvers.adapters.relaxation import relaxation_bound
from optiprune.solvers.adapters.scaling import with_scaled_rows

EXACT = [
    ("highs", {}),
    ("highs", {"relaxation": False}),
    ("pyomo", {}),
    ("pyomo", {"solver": "scip"}),
]


def equation(seed: int, unit: float) -> tuple[BudgetQP, float]:
    """Real costs that must add up to those of a known assignment, and the optimum by enumeration.

    The limit is their sum in another order, so that A x = limit holds up to rounding only.
    """
    r = np.random.default_rng(seed)
    A = r.uniform(1e8, 1e9, size=(1, 10)) * unit
    total = float(sum(A[0][::2][::-1]))
    problem = BudgetQP(r.normal(size=(10, 10)), A=A, lower=[total], upper=[total])
    X = ((np.arange(2**10)[:, None] >> np.arange(10)) & 1).astype(np.int8)
    return problem, min(problem.energy(x) for x in X if problem.is_feasible(x))


@pytest.mark.parametrize(("name", "options"), EXACT)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unit", [1e-20, 1e-9, 1.0, 1e6])
def test_a_feasible_equation_is_feasible_in_every_unit(name, options, seed, unit) -> None:
    problem, best = equation(seed, unit)
    s = solvers.get(name, **options).solve(problem)
    assert s.status is Status.OPTIMAL, s.stats.message
    assert s.energy == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(("name", "options"), EXACT)
def test_entries_below_a_fixed_threshold_count(name, options) -> None:
    # ten of the twelve, in units of 0.9e-9: HiGHS drops matrix entries below 1e-9
    problem = BudgetQP(np.eye(12), A=np.full((1, 12), 0.9e-9), lower=[9e-9], upper=[np.inf])
    s = solvers.get(name, **options).solve(problem)
    assert s.status is Status.OPTIMAL
    assert s.energy == pytest.approx(10.0)


@pytest.mark.parametrize(("name", "options"), EXACT)
def test_entries_far_below_those_of_their_row_do_no_harm(name, options) -> None:
    A = np.array([[1.0, 1.0, 1.0, 1e-13, -1e-14, 1e-30]])
    problem = BudgetQP(-np.eye(6), A=A, upper=[2.0])
    s = solvers.get(name, **options).solve(problem)
    assert s.status is Status.OPTIMAL
    assert s.energy == -5.0


@pytest.mark.parametrize(("name", "options"), EXACT)
def test_what_no_assignment_meets_is_still_infeasible(name, options) -> None:
    for unit in (1e-12, 1.0, 1e12):
        parity = BudgetQP(
            -np.eye(3), A=unit * np.full((1, 3), 2.0), upper=[3 * unit], lower=[3 * unit]
        )
        s = solvers.get(name, **options).solve(parity)
        assert s.status is Status.INFEASIBLE


def test_the_relaxation_in_small_units() -> None:
    # min -x1 - x2 under 2 x1 + x2 <= 2 is -1.5 at (1/2, 1), whatever the unit of the row
    for unit in (1e-12, 1.0, 1e12):
        budget = BudgetQP(np.zeros((2, 2)), [-1.0, -1.0], A=[[2 * unit, unit]], upper=[2 * unit])
        assert relaxation_bound(budget) == pytest.approx(-1.5, abs=1e-6)
        both = BudgetQP(
            np.eye(2), A=unit * np.ones((2, 2)), upper=[unit, 2 * unit], lower=[0, 1.5 * unit]
        )
        with pytest.raises(InfeasibleProblemError):
            relaxation_bound(both)


def test_rows_are_scaled_by_powers_of_two_and_widened() -> None:
    A = [[3.0, -12.0, 0.0], [0.0, 0.0, 0.0], [1e-9, 2e-9, 3e-9]]
    upper, lower = [6.0, 5.0, np.inf], [-np.inf, -1.0, 2e-9]
    p = with_scaled_rows(BudgetQP(np.eye(3), A=A, upper=upper, lower=lower))
    assert p.A[0].tolist() == [0.375, -1.5, 0.0]
    assert p.A[1].tolist() == [0.0, 0.0, 0.0]
    assert 1 <= np.abs(p.A[2]).max() < 2
    assert np.log2(p.A[2, 0] / 1e-9) % 1 == 0
    # half of the 1e-9 of the limit that `BudgetQP.violation` forgives at the least
    assert p.upper[0] == pytest.approx(0.75 * (1 + 5e-10), rel=1e-14)
    assert (p.lower[0], p.upper[2]) == (-np.inf, np.inf)
    assert p.lower[2] < 2e-9 * (p.A[2, 0] / 1e-9)
    other = CardinalityQP(np.eye(3), k=1)
    assert with_scaled_rows(other) is other


@pytest.mark.parametrize("linearisation", ["fortet", "glover"])
def test_products_far_below_the_largest_do_no_harm(linearisation) -> None:
    q = np.diag([-1.0, 2.0, -3.0])
    q[0, 1] = q[1, 0] = 1e-14
    q[0, 2] = q[2, 0] = -1e-30
    s = solvers.get("highs", linearisation=linearisation).solve(QUBO(q))
    assert (s.status, s.x.tolist()) == (Status.OPTIMAL, [1, 0, 1])


def test_what_highs_would_change_is_refused() -> None:
    model = linearise(BudgetQP(np.eye(2), A=[[1.0, 1e16]], upper=[1.0]))
    with pytest.raises(SolverError, match="HiGHS does not take the linearised rows"):
        fill_milp(new_highs(), model)
    with pytest.raises(SolverError, match=r"the budgets as they are \(kWarning\)"):
        require_ok(highspy.HighsStatus.kWarning, "the budgets")
