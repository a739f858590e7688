"""Penalty QUBOs: every minimiser feasible and optimal, and the way back."""

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
    repair,
    to_penalty_qubo,
)
from optiprune.problems.integer_rows import slack_bits

KINDS = ("qubo", "cardinality", "groups", "knapsack", "covering", "mixed")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 100_000))
def test_every_minimiser_is_feasible_and_optimal(brute, kind, seed):
    p = brute.random(kind, seed, factored=seed % 4 == 0)
    best, _ = brute.minimum(p)
    form = to_penalty_qubo(p)
    Z = brute.all(form.n_extended)
    e = form.qubo.energies(Z)
    assert e.min() == pytest.approx(best, abs=1e-7)
    for z in Z[e <= e.min() + 1e-7]:
        x = form.extract(z)
        assert p.violation(x) == 0
        assert p.energy(x) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 100_000))
def test_extend_and_repair(brute, kind, seed):
    p = brute.random(kind, seed)
    form = to_penalty_qubo(p)
    for x in brute.all(p.n):
        z = form.extend(x)
        np.testing.assert_array_equal(form.extract(z), x)
        y = form.repair(z)
        assert p.violation(y) == 0
        np.testing.assert_array_equal(y, form.repair(x))
        if p.violation(x) == 0:
            np.testing.assert_array_equal(y, x)
            assert form.qubo.energy(z) == pytest.approx(p.energy(x), abs=1e-7)
        else:
            assert form.qubo.energy(z) > p.energy(x)


def test_coefficient_by_hand():
    # one group, k = 1 of 3, no couplings: clearing x_i raises E by -linear_i = 1, 5, 3 at most;
    # with one too many, at least one of any two ones costs no more than the second largest, 3.
    # The gap bound: repair reaches the optimum -5, and E_low = -9, so 4 is larger
    p = CardinalityQP(np.zeros((3, 3)), [-1.0, -5.0, -3.0], k=1)
    form = to_penalty_qubo(p)
    assert form.coefficient == pytest.approx(3.0 + 0.01 * 5.0)
    # below 3 the minimiser is indeed infeasible: {1, 2} has -8 + c < -5
    low = to_penalty_qubo(p, penalty=2.9)
    assert low.qubo.energy([0, 1, 1]) < low.qubo.energy([0, 1, 0])


def test_coefficients_are_per_group_and_beat_the_sum_of_all():
    Q = np.zeros((4, 4))
    p = CardinalityQP(Q, [-1.0, -1.0, -100.0, -100.0], k=[1, 1], groups=[0, 0, 1, 1])
    c = to_penalty_qubo(p).coefficients
    assert c[0] < 3
    assert 100 < c[1] < 102


def test_knapsack_slack_bits():
    p = BudgetQP(np.zeros((3, 3)), [-1, -1, -1], A=[2.0, 4.0, 6.0], upper=9.0)
    form = to_penalty_qubo(p)
    # divided by 2: (1, 2, 3) <= 4, slack 0..4 in bits 1, 2, 1
    assert form.n_extended == 6
    assert form.qubo.energy(form.extend([1, 0, 1])) == pytest.approx(-2)


@pytest.mark.parametrize("span", range(40))
def test_slack_bits_reach_exactly_the_span(span):
    bits = slack_bits(span)
    sums = {0}
    for b in bits:
        sums |= {s + b for s in sums}
    assert sums == set(range(span + 1))
    assert len(bits) == span.bit_length()


def test_factor_form_is_kept():
    p = CardinalityQP(FactoredMatrix(np.ones((2, 9))), k=3)
    form = to_penalty_qubo(p)
    assert form.qubo.is_factored
    dense = to_penalty_qubo(CardinalityQP(p.dense(), k=3))
    for x in np.eye(9, dtype=int):
        assert form.qubo.energy(x) == pytest.approx(dense.qubo.energy(x))


def test_rows_that_exclude_nothing_cost_nothing():
    form = to_penalty_qubo(BudgetQP(np.eye(2), A=[[1, 1], [0, 0]], upper=[2, 5]))
    assert form.n_extended == 2
    assert form.coefficient == 0


def test_rows_that_are_not_integral():
    p = BudgetQP(np.eye(2), A=[1.0, np.sqrt(2)], upper=2.0)
    with pytest.raises(ProblemError, match="cannot be scaled to integers"):
        to_penalty_qubo(p)
    with pytest.raises(ProblemError, match=r"2\*\*40"):
        to_penalty_qubo(BudgetQP(np.eye(2), A=[1.0, 2.0**41], upper=2.0))


def test_decimal_rows_are_scaled(brute):
    p = BudgetQP(np.zeros((3, 3)), [-1, -2, -3], A=[0.1, 0.25, 0.3], upper=0.4)
    form = to_penalty_qubo(p)
    z = min(brute.all(form.n_extended), key=form.qubo.energy)
    np.testing.assert_array_equal(form.extract(z), [1, 0, 1])


def test_no_integer_between_the_limits():
    with pytest.raises(InfeasibleProblemError, match="multiple of 2"):
        to_penalty_qubo(BudgetQP(np.eye(2), A=[2, 2], upper=[1.5], lower=[0.5]))


def test_rows_that_exclude_each_other():
    p = BudgetQP(np.eye(2), A=[[1, 1], [1, 1]], upper=[1, 2], lower=[0, 2])
    for call in (lambda: to_penalty_qubo(p), lambda: repair(p, [0, 0])):
        with pytest.raises(InfeasibleProblemError, match="no assignment"):
            call()


@pytest.mark.parametrize("penalty", [0, -1.0, np.nan, np.inf])
def test_bad_penalty(penalty):
    with pytest.raises(ProblemError, match="penalty"):
        to_penalty_qubo(CardinalityQP(np.eye(2), k=1), penalty)


def test_other_types_are_refused():
    with pytest.raises(ProblemError, match="MIQP"):
        to_penalty_qubo(MIQP(np.eye(2), [1, 1], k=1))
    with pytest.raises(ProblemError, match="MIQP"):
        repair(MIQP(np.eye(2), [1, 1], k=1), [0, 0])


def test_a_qubo_passes_through():
    p = QUBO(np.eye(2))
    assert to_penalty_qubo(p).qubo is p


def test_repair_takes_the_cheapest_way():
    # clearing x_1 costs 1, the others 5: it goes first
    p = CardinalityQP(np.zeros((3, 3)), [-5.0, -1.0, -5.0], k=2)
    np.testing.assert_array_equal(repair(p, [1, 1, 1]), [1, 0, 1])
    np.testing.assert_array_equal(repair(p, [0, 0, 0]), [1, 0, 1])


def test_repair_needs_the_milp_where_greedy_is_stuck():
    # 3 a + 5 b + 7 c = 8: from {c}, no flip nor exchange comes nearer to 8 than 7 is, but {a, b} is
    p = BudgetQP(np.zeros((3, 3)), A=[3, 5, 7], upper=8, lower=8)
    np.testing.assert_array_equal(repair(p, [0, 0, 1]), [1, 1, 0])
