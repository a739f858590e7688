"""What counts as within a budget: the kernels and the sample reader agree with `violation`."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import BudgetQP
from optiprune.solvers.adapters import dimod_samples
from optiprune.solvers.native import budget_search
from optiprune.solvers.native.enumerate import _feasible

N = 5
X = np.array(list(itertools.product((0, 1), repeat=N)), dtype=np.int8)


def rows_at_the_limit(seed, unit):
    """Limits within a few tolerances of an assignment's activity, 0 and infinite ones too."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(3, N)) * rng.choice([0, 1, 1e-6], (3, N))
    A[2, :3] = 0.1, 0.2, -0.3
    A[2, 3:] = 0
    x = rng.integers(0, 2, N)
    use, moved = A @ x, np.abs(A) @ x
    upper = use + 1e-9 * moved * rng.choice([-3, -0.4, 0, 0.4, 3], 3)
    lower = use - 1e-9 * moved * rng.choice([-3, -0.4, 0, 0.4, 3], 3)
    upper[0], upper[2], lower[1] = np.inf, 0.0, -np.inf
    lower = np.minimum(lower, upper)
    return A * unit, lower * unit, upper * unit


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 100_000), power=st.integers(-60, 60))
def test_agreement(seed, power):
    A, lower, upper = rows_at_the_limit(seed, 2.0**power)
    try:
        p = BudgetQP(np.zeros((N, N)), A=A, upper=upper, lower=lower)
    except ValueError:
        return  # a row that no assignment meets
    want = np.array([p.violation(x) == 0 for x in X])
    np.testing.assert_array_equal(dimod_samples._feasible(p, X), want)
    AT = np.ascontiguousarray(p.A.T)
    low, high = np.array(p.lower), np.array(p.upper)
    np.testing.assert_array_equal([_feasible(AT, low, high, x) for x in X], want)
    # the search's limits do not depend on x: they may refuse what violation forgives, but never
    # take what it does not, and no rounding in a sum that is exactly at its limit is refused
    rows = budget_search._Rows.of(p)
    use = X @ rows.AT
    fits = ((use <= rows.high) & (use >= rows.low)).all(axis=1)
    assert not (fits & ~want).any()


def test_a_sum_that_is_zero_but_for_rounding_fits():
    p = BudgetQP(np.zeros((3, 3)), A=[0.1, 0.2, -0.3], upper=0.0, lower=0.0)
    rows = budget_search._Rows.of(p)
    use = float(np.ones(3) @ rows.AT[:, 0])
    assert use != 0
    assert rows.low[0] <= use <= rows.high[0]
