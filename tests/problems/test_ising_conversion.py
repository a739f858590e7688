"""QUBO <-> Ising, exact on integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import QUBO, CardinalityQP, Ising, ProblemError, from_ising, to_ising


def test_by_hand():
    # E = 4 x0 x1 - x0: with x = (1 + s)/2 this is 1 + s0 + s1 + s0 s1 - 1/2 - s0/2
    p = to_ising(QUBO([[0, 4], [0, 0]], [-1, 0]))
    np.testing.assert_array_equal(p.J, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(p.h, [0.5, 1.0])
    assert p.offset == 0.5
    assert [p.energy(s) for s in ([-1, -1], [-1, 1], [1, -1], [1, 1])] == [0, 0, -1, 3]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_there_and_back_is_exact_on_integers(brute, seed):
    p = brute.random("qubo", seed, factored=seed % 3 == 0)
    ising = to_ising(p)
    back = from_ising(ising)
    for x in brute.all(p.n):
        assert ising.energy(2 * x - 1) == p.energy(x) == back.energy(x)


def test_upper_and_symmetric_couplings_mean_the_same():
    upper = Ising([[0, 3], [0, 0]], [1, 2], 0.5)
    both = Ising([[0, 3], [3, 0]], [1, 2], 0.5)
    for s in ([1, 1], [1, -1], [-1, -1]):
        assert upper.energy(s) == both.energy(s)
    assert upper.energy([1, 1]) == 6.5


@pytest.mark.parametrize(
    "J", [[[1.0]], [[0, 1], [2, 0]], [[0, 0], [2, 0]], [[0, np.nan], [0, 0]], [[1, 2, 3]], "J"]
)
def test_malformed_couplings(J):
    with pytest.raises(ProblemError):
        Ising(J)


@pytest.mark.parametrize("s", [[0, 1], [1], [1, 2]])
def test_bad_spins(s):
    with pytest.raises(ProblemError, match="s must"):
        Ising(np.zeros((2, 2))).energy(s)


def test_constraints_are_refused_with_a_way_out():
    with pytest.raises(ProblemError, match="to_penalty_qubo"):
        to_ising(CardinalityQP(np.eye(2), k=1))
