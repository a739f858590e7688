"""Linearisations against enumeration, through scipy's MILP solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import milp

from optiprune.problems import (
    MIQP,
    QUBO,
    CardinalityQP,
    ProblemError,
    linearise,
    to_linear_constraints,
    to_milp,
)

KINDS = ("qubo", "cardinality", "groups", "knapsack", "mixed")


@pytest.mark.parametrize("method", ["fortet", "glover"])
@pytest.mark.parametrize("envelope", ["needed", "full"])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 100_000), kind=st.sampled_from(KINDS))
def test_milp_optimum_is_the_optimum(brute, method, envelope, seed, kind):
    p = brute.random(kind, seed, factored=seed % 4 == 0)
    best, _ = brute.minimum(p)
    model = linearise(p, method=method, envelope=envelope)
    result = milp(**model.to_scipy())
    assert result.fun + model.offset == pytest.approx(best, abs=1e-6)
    x = model.extract(result.x)
    assert p.violation(x) == 0
    assert p.energy(x) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("method", ["fortet", "glover"])
@pytest.mark.parametrize("kind", KINDS)
def test_extension_of_any_feasible_x_is_feasible_and_has_its_energy(brute, method, kind):
    for seed in range(10):
        p = brute.random(kind, seed)
        m = linearise(p, method=method, envelope="full")
        for x in brute.all(p.n):
            if p.violation(x) > 0:
                continue
            z = m.extend(x)
            assert m.c @ z + m.offset == pytest.approx(p.energy(x), abs=1e-9)
            rows = m.A @ z
            assert (rows <= m.row_upper + 1e-9).all()
            assert (rows >= m.row_lower - 1e-9).all()
            assert (z <= m.col_upper + 1e-9).all()
            assert (z >= m.col_lower - 1e-9).all()


def test_sizes_by_hand():
    # products: 0-1 gains (q = -4), 0-2 costs (q = 2), 1-2 is absent
    p = QUBO([[0, -2, 1], [-2, 0, 0], [1, 0, 0]])
    m = linearise(p)
    np.testing.assert_array_equal(m.pairs, [[0, 1], [0, 2]])
    np.testing.assert_array_equal(m.c, [0, 0, 0, -4, 2])
    assert m.n_rows == 3  # two for the gain, one for the cost
    assert linearise(p, envelope="full").n_rows == 6
    g = linearise(p, method="glover")
    assert g.n_cols == 4  # only x_0 has partners after it
    assert g.n_rows == 2
    assert m.integrality.tolist() == [1, 1, 1, 0, 0]


def test_no_products_no_rows():
    model, arguments = to_milp(QUBO(np.eye(3), [-2, -0.5, 0]))
    assert model.n_rows == 0
    result = milp(**arguments)
    np.testing.assert_array_equal(model.extract(result.x), [1, 0, 0])
    for n in (0, 1):
        assert linearise(CardinalityQP(np.eye(n), k=n), method="glover").n_cols == n


def test_glover_bounds_use_the_cardinality():
    q = np.ones((8, 8))
    free = linearise(QUBO(q), method="glover")
    tied = linearise(CardinalityQP(q, k=2), method="glover")
    assert free.col_upper[8] == 14.0
    assert tied.col_upper[8] == 4.0


def test_linear_constraints():
    constraints, bounds = to_linear_constraints(CardinalityQP(np.eye(3), k=2))
    assert len(constraints) == 1
    assert constraints[0].A.toarray().tolist() == [[1, 1, 1]]
    assert constraints[0].lb == constraints[0].ub == [2]
    assert bounds.ub == 1
    assert to_linear_constraints(QUBO(np.eye(3)))[0] == []


@pytest.mark.parametrize(
    ("z", "message"),
    [([0.5, 0], "not binary"), ([0], "shape"), ([np.nan, 0], "binary"), ([2, 0], "bin")],
)
def test_extract_refuses_what_is_not_binary(z, message):
    with pytest.raises(ProblemError, match=message):
        linearise(QUBO(np.eye(2))).extract(z)


def test_refusals():
    p = QUBO(np.eye(2))
    with pytest.raises(ProblemError, match="'fortet', 'glover'"):
        linearise(p, method="fort")
    with pytest.raises(ProblemError, match="'needed', 'full'"):
        linearise(p, envelope="some")
    with pytest.raises(ProblemError, match="MIQP"):
        linearise(MIQP(np.eye(2), [1, 1], k=1))
    with pytest.raises(ProblemError, match="MIQP"):
        to_linear_constraints(MIQP(np.eye(2), [1, 1], k=1))
