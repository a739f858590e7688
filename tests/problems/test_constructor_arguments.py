"""What constructors and generators do with odd arguments, and with the caller's arrays."""

import numpy as np
import pytest
import scipy.sparse as sp

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    Ising,
    ProblemError,
    fisher_problem,
    layer_miqp,
    layer_problem,
    palubeckis,
    to_penalty_qubo,
    write_bqp,
)

I2 = np.eye(2)


@pytest.mark.parametrize("value", ["a", "1", None, [1.0], np.nan, np.inf, 1j, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: QUBO(I2, offset=v),
        lambda v: CardinalityQP(I2, offset=v, k=1),
        lambda v: BudgetQP(I2, offset=v, A=[1, 1], upper=1),
        lambda v: MIQP(I2, [1, 1], k=1, offset=v),
        lambda v: Ising(np.zeros((2, 2)), offset=v),
        lambda v: palubeckis(3, v, 1),
        lambda v: layer_problem(4, 2, correlation=v),
        lambda v: layer_problem(4, 2, outliers=v),
        lambda v: fisher_problem(4, 2, ridge=v),
        lambda v: fisher_problem(4, 2, gradient=v),
    ],
)
def test_numbers_are_numbers(make, value):
    with pytest.raises(ProblemError, match="must be"):
        make(value)


@pytest.mark.parametrize("value", ["a", 0, -1.0, np.nan])
def test_penalties_and_bounds_are_positive_numbers(value):
    with pytest.raises(ProblemError, match="penalty"):
        to_penalty_qubo(CardinalityQP(I2, k=1), value)
    with pytest.raises(ProblemError, match="bound"):
        layer_miqp(4, 2, bound=value)


@pytest.mark.parametrize("k", [True, np.True_, [1], "1", None, 1.5, np.nan])
def test_the_size_of_a_support_is_a_whole_number(k):
    with pytest.raises(ProblemError, match="k must be"):
        MIQP(I2, [1, 1], k=k)


def test_sizes_may_be_numpy_integers_and_whole_floats():
    for k in (1, 1.0, np.int32(1), np.array(1)):
        assert MIQP(I2, [1, 1], k=k).k == 1


@pytest.mark.parametrize("seed", [None, "a", 1.5, True])
def test_seeds(seed):
    for make in (lambda: palubeckis(3, 50, seed), lambda: layer_problem(4, 2, seed=seed)):
        with pytest.raises(ProblemError, match="seed must be"):
            make()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_callers_arrays_may_change_afterwards(dtype):
    a, v = np.eye(2, dtype=dtype), np.ones(2, dtype=dtype)
    view = a[:]
    view.flags.writeable = False  # a read-only view of what can still be written to
    problems = [
        QUBO(a, v),
        QUBO(view, v),
        QUBO(FactoredMatrix(a, v), v),
        CardinalityQP(a, v, k=1),
        BudgetQP(a, v, A=a, upper=v),
        MIQP(a, v, k=1),
    ]
    before = [p.energy([1, 0]) for p in problems]
    a[:], v[:] = 7, 7
    assert [p.energy([1, 0]) for p in problems] == before
    for p in problems:
        assert p.violation([1, 0]) == 0


def test_constant_arrays_are_shared():
    a = np.eye(3)
    a.flags.writeable = False
    q = QUBO(a)
    assert np.shares_memory(q.Q, a)
    assert np.shares_memory(CardinalityQP(q.Q, k=1).Q, a)
    f = FactoredMatrix(a[:2])
    assert np.shares_memory(f.factor, a)
    s = sp.csr_matrix(a)
    assert not QUBO(s).Q.flags.writeable


def test_a_diagonal_and_a_linear_term_that_overflow_together_are_not_written(tmp_path):
    p = QUBO([[1e308]], [1e308])
    with pytest.raises(ProblemError, match=r"Q\[0, 0\] \+ linear\[0\] is too large"):
        write_bqp(p, tmp_path / "p.bqp")
    assert not list(tmp_path.iterdir())


class TestIndefinite:
    """Weights of a support are a minimum only where H is positive semidefinite."""

    def test_a_saddle_is_refused(self):
        with pytest.raises(ProblemError, match=r"from -1 to 1\. Add a ridge of at least 1"):
            MIQP(np.diag([1.0, -1.0]), [0, 0], k=2, M=1)
        with pytest.raises(ProblemError, match="not positive semidefinite"):
            MIQP([[0.0, 1.0], [1.0, 0.0]], [1, 1], k=1, M=1)
        with pytest.raises(ProblemError, match="not positive semidefinite"):
            MIQP(FactoredMatrix(np.ones((1, 2)), [0.0, -3.0]), [1, 1], k=1, M=1)

    @pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
    def test_in_every_unit(self, unit):
        with pytest.raises(ProblemError, match="not positive semidefinite"):
            MIQP(unit * np.diag([1.0, -1e-6]), [0, 0], k=2, M=1)
        MIQP(unit * np.diag([1.0, 0.0]), [0, 0], k=2, M=1)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_singular_gram_matrix_is_not_refused_for_its_rounding(self, dtype):
        X = np.random.default_rng(0).normal(size=(20, 200)).astype(dtype)
        H = (X.T @ X).astype(dtype)
        assert np.linalg.eigvalsh(H.astype(float))[0] < 0
        MIQP(H, np.zeros(200), k=3, M=1)
        MIQP(np.zeros((2, 2), dtype=dtype), [1, 1], k=1, M=1)

    def test_a_negative_diagonal_that_the_factor_outweighs(self):
        MIQP(FactoredMatrix(np.eye(2), [-0.5, -0.5]), [1, 1], k=1)
