"""Fixing and restricting: the small problem is the large one seen through a window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    InfeasibleProblemError,
    ProblemError,
    fix_variables,
    restrict,
)

KINDS = ("qubo", "cardinality", "groups", "knapsack", "covering", "mixed")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 100_000), factored=st.booleans())
def test_window(brute, kind, seed, factored):
    p = brute.random(kind, seed, factored=factored)
    rng = np.random.default_rng(seed)
    _, optima = brute.minimum(p)
    x = optima[0]
    index = rng.permutation(p.n)[: rng.integers(0, p.n + 1)]
    r = restrict(p, index, x)
    assert type(r.problem) is type(p)
    assert r.problem.is_factored == factored
    np.testing.assert_array_equal(r.shrink(x), x[index])
    for small in brute.all(len(index)):
        full = r.expand(small)
        np.testing.assert_array_equal(full[index], small)
        np.testing.assert_array_equal(np.delete(full, index), np.delete(x, index))
        assert r.problem.energy(small) == pytest.approx(p.energy(full), abs=1e-9)
        assert r.problem.violation(small) == pytest.approx(p.violation(full), abs=1e-9)
    # the same through fix_variables, in the original order
    outside = np.setdiff1d(np.arange(p.n), index)
    f = fix_variables(p, {int(i): int(x[i]) for i in outside})
    np.testing.assert_array_equal(f.free, np.sort(index))
    assert f.problem.energy(f.shrink(x)) == pytest.approx(p.energy(x), abs=1e-9)


def test_by_hand():
    p = CardinalityQP([[1, 2], [2, 3]], [10, 20], 5, k=2)
    r = fix_variables(p, {0: 1})
    # Q_11 = 3, linear 20 + 2 * 2, offset 5 + 1 + 10, one more to choose
    assert r.problem.Q.tolist() == [[3]]
    assert r.problem.linear.tolist() == [24]
    assert r.problem.offset == 16
    assert r.problem.k.tolist() == [1]


def test_float32_and_factor_storage_are_kept():
    p = QUBO(np.ones((4, 4), dtype=np.float32))
    assert restrict(p, [0, 2], [1, 1, 1, 1]).problem.Q.dtype == np.float32
    f = QUBO(FactoredMatrix(np.ones((2, 4), dtype=np.float32), np.ones(4)))
    small = restrict(f, [3, 1], [1, 1, 0, 0]).problem
    assert small.Q.factor.shape == (2, 2)
    assert small.Q.factor.dtype == np.float32


def test_miqp_fixed_to_zero(brute):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 5))
    p = MIQP(a.T @ a, rng.normal(size=5), k=2, M=2.0, offset=1.0)
    r = fix_variables(p, {1: 0, 4: 0})
    for small in brute.all(3):
        assert r.problem.energy(small) == pytest.approx(p.energy(r.expand(small)))
    assert r.problem.k == 2
    q = restrict(p, [2, 0], [1, 0, 1, 0, 0])
    assert q.problem.energy([1, 1]) == pytest.approx(p.energy([1, 0, 1, 0, 0]))
    with pytest.raises(ProblemError, match="fixed to 1"):
        fix_variables(p, {1: 1})
    with pytest.raises(ProblemError, match="fixed to 1"):
        restrict(p, [0], [0, 1, 1, 0, 0])
    with pytest.raises(InfeasibleProblemError):
        restrict(p, [0], [1, 0, 0, 0, 0])


def test_what_cannot_be_met():
    p = CardinalityQP(np.eye(3), k=1)
    with pytest.raises(InfeasibleProblemError):
        fix_variables(p, {0: 1, 1: 1})
    with pytest.raises(InfeasibleProblemError):
        fix_variables(p, {0: 0, 1: 0, 2: 0})
    with pytest.raises(InfeasibleProblemError):
        fix_variables(BudgetQP(np.eye(2), A=[3, 1], upper=2), {0: 1})


@pytest.mark.parametrize("values", [{3: 1}, {-1: 0}, {"a": 1}, {0: 2}, {True: 1}, {0: 0.5}])
def test_bad_values(values):
    with pytest.raises(ProblemError):
        fix_variables(QUBO(np.eye(3)), values)


@pytest.mark.parametrize("index", [[0, 0], [3], [-1], [0.5], [[0]], ["a"]])
def test_bad_index(index):
    with pytest.raises(ProblemError):
        restrict(QUBO(np.eye(3)), index, [0, 0, 0])


def test_shrink_refuses_another_fixed_value():
    r = fix_variables(QUBO(np.eye(3)), {1: 1})
    with pytest.raises(ProblemError, match=r"x\[1\] = 0, but it is fixed to 1"):
        r.shrink([0, 0, 0])


def test_nothing_left():
    r = restrict(QUBO(np.eye(2), offset=1.0), [], [1, 1])
    assert r.problem.n == 0
    assert r.problem.energy([]) == 3.0


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 100_000), unit=st.integers(-40, 40), equation=st.booleans())
def test_a_budget_met_to_the_last_digit_stays_met(seed, unit, equation):
    """Whatever the sizes of what is fixed: rounding in ``limit - used`` excludes nothing."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    A = rng.choice([-1, 1], (2, n)) * rng.uniform(0.1, 1, (2, n)) * 10.0 ** rng.integers(-6, 7, n)
    A *= 2.0**unit
    x = rng.integers(0, 2, n)
    use = A @ x
    p = BudgetQP(np.zeros((n, n)), A=A, upper=use, lower=use if equation else None)
    assert p.violation(x) == 0
    index = rng.permutation(n)[: rng.integers(0, n + 1)]
    r = restrict(p, index, x)
    assert r.problem.violation(x[index]) == 0


def test_limits_of_whole_numbers_shift_exactly():
    p = BudgetQP(np.zeros((3, 3)), A=[3.0, 0.25, 7.0], upper=10.0, lower=3.0)
    r = fix_variables(p, {2: 1})
    assert r.problem.upper.tolist() == [3.0]
    assert r.problem.lower.tolist() == [-4.0]
