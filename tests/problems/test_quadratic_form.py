"""Energies, fields and deltas of the binary problems against the definition."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    InfeasibleProblemError,
    ProblemError,
    as_binary,
)


def test_energy_by_hand():
    # x = (1, 0, 1): Q_00 + Q_22 + Q_02 + Q_20 = 1 + 9 + 3 + 7 = 20; linear 0.5 - 2; offset 10
    Q = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    p = QUBO(Q, [0.5, 100.0, -2.0], 10.0)
    assert p.energy([1, 0, 1]) == 28.5
    assert p.energy([0, 0, 0]) == 10.0
    np.testing.assert_array_equal(p.Q, [[1, 3, 5], [3, 5, 7], [5, 7, 9]])
    # field of x_1 at (1, 0, 1): 100 + 5 + 2 (3 + 7) = 125; of x_0: 0.5 + 1 + 2 * 5 = 11.5
    np.testing.assert_allclose(p.fields([1, 0, 1]), [11.5, 125.0, 17.0])
    np.testing.assert_allclose(p.flip_deltas([1, 0, 1]), [-11.5, 125.0, -17.0])
    # x_0 out, x_1 in: (0, 1, 1) has 5 + 9 + 14 + 98 + 10 = 136
    assert p.exchange_delta([1, 0, 1], 0, 1) == pytest.approx(136 - 28.5)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), factored=st.booleans(), single=st.booleans())
def test_energies_and_deltas_match_recomputation(brute, seed, factored, single):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    dtype = np.float32 if single else np.float64
    if factored:
        m = FactoredMatrix(rng.normal(size=(3, n)).astype(dtype), rng.normal(size=n))
        f = m.factor.astype(float)
        Q = f.T @ f + np.diag(m.diagonal)
    else:
        m = Q = rng.normal(size=(n, n)).astype(dtype)
    linear, offset = rng.normal(size=n), float(rng.normal())
    p = QUBO(m, linear, offset)
    x = rng.integers(0, 2, n)
    e = brute.energy(Q, linear, offset, x)
    tolerance = 1e-5 if single else 1e-12
    assert p.energy(x) == pytest.approx(e, abs=tolerance)
    np.testing.assert_allclose(p.dense(), (Q + Q.T) / 2, atol=tolerance)
    np.testing.assert_allclose(p.diagonal(), np.diag(Q), atol=tolerance)
    flips = p.flip_deltas(x)
    for i in range(n):
        y = x.copy()
        y[i] ^= 1
        assert flips[i] == pytest.approx(p.energy(y) - p.energy(x), abs=1e-10)
    for i in np.flatnonzero(x == 1):
        for j in np.flatnonzero(x == 0):
            y = x.copy()
            y[i], y[j] = 0, 1
            want = p.energy(y) - p.energy(x)
            assert p.exchange_delta(x, i, j) == pytest.approx(want, abs=1e-10)
    X = brute.all(n)
    np.testing.assert_allclose(p.energies(X), [p.energy(r) for r in X], atol=1e-10)


def test_float32_is_stored_and_accumulated_in_float64():
    n = 3000
    p = QUBO(np.full((n, n), 0.1, dtype=np.float32))
    assert p.Q.dtype == np.float32
    exact = n * n * float(np.float32(0.1))
    # a float32 sum of nine million tenths is off by more than 1e-4
    assert p.energy(np.ones(n)) == pytest.approx(exact, rel=1e-12)
    f = QUBO(FactoredMatrix(np.full((2, n), 0.1, dtype=np.float32)))
    assert f.Q.factor.dtype == np.float32
    assert f.energy(np.ones(n)) == pytest.approx(2 * (n * float(np.float32(0.1))) ** 2, rel=1e-12)


def test_sparse_and_integer_matrices():
    p = QUBO(sp.csr_matrix(np.array([[0, 2], [0, 0]])))
    assert p.energy([1, 1]) == 2.0
    assert p.Q.dtype == np.float64


def test_the_callers_array_stays_writeable():
    Q = np.eye(2)
    p = QUBO(Q)
    assert not p.Q.flags.writeable
    Q[0, 0] = 1.0  # does not raise
    with pytest.raises(ValueError):
        p.linear[0] = 1.0


def test_symmetrising_does_not_overflow():
    big = 1.5e308
    assert QUBO([[0.0, big], [big / 2, 0.0]]).Q[0, 1] == pytest.approx(0.75 * big)


@pytest.mark.parametrize("n", [0, 1])
def test_smallest_problems(n):
    for Q in (np.ones((n, n)), FactoredMatrix(np.ones((1, n))), FactoredMatrix(np.ones((0, n)))):
        p = QUBO(Q, offset=2.0)
        assert p.n == n
        assert p.energy(np.zeros(n)) == 2.0
        assert p.fields(np.zeros(n)).shape == (n,)
        c = CardinalityQP(Q, k=n)
        assert c.violation(np.ones(n)) == 0
        b = BudgetQP(Q, A=np.ones((1, n)), upper=n)
        assert b.violation(np.ones(n)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2]],), "square"),
        (([[np.nan]],), "Q holds nan at index"),
        (([[1, np.inf], [0, 1]],), "Q holds inf"),
        (([["a"]],), "numbers"),
        (([[1], [1, 2]],), "numbers"),
        (([[1j]],), "complex"),
        (([[1.0]], [1, 2]), r"linear must have shape \(1,\)"),
        (([[1.0]], [np.nan]), "linear holds nan"),
        (([[1.0]], None, np.inf), "offset"),
    ],
)
def test_malformed_forms(arguments, message):
    with pytest.raises(ProblemError, match=message):
        QUBO(*arguments)


@pytest.mark.parametrize(
    ("factor", "message"),
    [([1.0], "shape"), ([[np.nan]], "nan"), ([[1j]], "complex"), ([["a"]], "numbers")],
)
def test_malformed_factors(factor, message):
    with pytest.raises(ProblemError, match=message):
        FactoredMatrix(factor)


@pytest.mark.parametrize("x", [[0, 1], [0, 1, 2], [0, 0.5, 1], [[0, 1, 0]], [0, np.nan, 1], "abc"])
def test_bad_assignments(x):
    with pytest.raises(ProblemError, match="x"):
        as_binary(x, 3)
    with pytest.raises(ProblemError):
        QUBO(np.eye(3)).energy(x)


def test_bad_batches_of_assignments_name_the_row():
    p = QUBO(np.eye(2))
    with pytest.raises(ProblemError, match="row 1"):
        p.energies([[0, 1], [0, 3]])
    with pytest.raises(ProblemError, match="shape"):
        p.energies([0, 1])


def test_exchange_needs_a_one_and_a_zero():
    with pytest.raises(ProblemError, match="exchange"):
        QUBO(np.eye(2)).exchange_delta([1, 0], 1, 0)


class TestCardinality:
    def test_violation_and_counts(self):
        p = CardinalityQP(np.zeros((5, 5)), k=[1, 2], groups=[0, 0, 1, 1, 1])
        np.testing.assert_array_equal(p.counts([1, 1, 1, 0, 0]), [2, 1])
        assert p.violation([1, 1, 1, 0, 0]) == 2
        assert p.is_feasible([1, 0, 1, 1, 0])
        assert not p.is_feasible([0, 0, 1, 1, 0])

    @pytest.mark.parametrize("k", [0, 4])
    def test_none_and_all(self, k):
        p = CardinalityQP(np.zeros((4, 4)), k=k)
        assert p.violation(np.full(4, k > 0)) == 0
        assert p.violation(np.full(4, k == 0)) == 4

    @pytest.mark.parametrize("k", [-1, 4, [5], 1e15])
    def test_impossible_counts(self, k):
        with pytest.raises(InfeasibleProblemError, match="group 0 holds 3"):
            CardinalityQP(np.zeros((3, 3)), k=k)

    @pytest.mark.parametrize(
        ("k", "groups"),
        [
            (1.5, None),
            ("a", None),
            (True, None),
            (1e300, None),
            (np.nan, None),
            ([1, 1], None),
            ([[1]], None),
            ([1], [0, 0]),
            ([1], [0, 0, 1]),
            ([1], [0, 0, -1]),
            ([1], [0, 0, 0.5]),
            ([1, [2]], [0, 0, 0]),
        ],
    )
    def test_malformed(self, k, groups):
        with pytest.raises(ProblemError):
            CardinalityQP(np.zeros((3, 3)), k=k, groups=groups)


class TestBudgets:
    def test_single_row_from_a_vector_and_a_number(self):
        p = BudgetQP(np.zeros((3, 3)), A=[1, 2, 3], upper=4)
        assert p.n_rows == 1
        assert p.violation([0, 1, 1]) == 1.0
        assert p.violation([1, 0, 1]) == 0.0

    def test_sparse_rows_and_both_limits(self):
        p = BudgetQP(
            np.zeros((2, 2)), A=sp.csr_matrix([[1.0, 1.0], [0.0, 3.0]]), upper=[1, 3], lower=[1, 2]
        )
        assert p.violation([0, 0]) == 3.0
        assert p.violation([0, 1]) == 0.0

    def test_rounding_is_forgiven(self):
        p = BudgetQP(np.zeros((3, 3)), A=[0.1, 0.1, 0.1], upper=0.3)
        assert 0.1 + 0.1 + 0.1 > 0.3
        assert p.violation([1, 1, 1]) == 0.0
        assert BudgetQP(np.zeros((1, 1)), A=[1.0], upper=0.999).violation([1]) > 0

    @pytest.mark.parametrize(
        ("upper", "lower"), [(-1, None), (np.inf, 7), (2, 3), (-np.inf, None), (0.5, 0.6)]
    )
    def test_impossible_rows(self, upper, lower):
        with pytest.raises(InfeasibleProblemError, match="row 0"):
            BudgetQP(np.zeros((3, 3)), A=[1, 2, 3], upper=upper, lower=lower)

    @pytest.mark.parametrize(
        ("A", "upper", "lower"),
        [
            ([1, 2], 1, None),
            ([1, 2, np.nan], 1, None),
            ([1, 2, np.inf], 1, None),
            ([1, 2, 3], np.nan, None),
            ([1, 2, 3], 1, np.nan),
            ([1, 2, 3], [1, 2], None),
            ([1, 2, 3], 1, [0, 0]),
            ([1, 2, "a"], 1, None),
        ],
    )
    def test_malformed(self, A, upper, lower):
        with pytest.raises(ProblemError):
            BudgetQP(np.zeros((3, 3)), A=A, upper=upper, lower=lower)
