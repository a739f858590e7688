"""Budgets mean the same in every unit: bytes or gigabytes, no tolerance is absolute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    QUBO,
    BudgetQP,
    InfeasibleProblemError,
    ProblemError,
    maxcut_qubo,
    repair,
    to_penalty_qubo,
    write_rudy,
)

UNITS = [1e-300, 1e-10, 1.0, 1e12]


@pytest.mark.parametrize("unit", UNITS)
def test_small_and_large_units(unit):
    p = BudgetQP(-np.eye(4), A=np.full((1, 4), unit), upper=unit, lower=unit)
    assert p.violation([1, 1, 1, 1]) == pytest.approx(3 * unit)
    assert p.violation([0, 0, 0, 0]) == unit
    assert p.violation([0, 0, 1, 0]) == 0
    assert p.is_feasible([0, 0, 1, 0])
    assert not p.is_feasible([0, 1, 1, 0])


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10_000), power=st.integers(-200, 200))
def test_a_change_of_unit_changes_nothing_but_the_unit(brute, seed, power):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    A = rng.normal(size=(2, n))
    limit = A @ rng.integers(0, 2, n)
    unit = 2.0**power
    p = BudgetQP(np.zeros((n, n)), A=A, upper=limit, lower=limit)
    q = BudgetQP(np.zeros((n, n)), A=A * unit, upper=limit * unit, lower=limit * unit)
    for x in brute.all(n):
        assert q.violation(x) == p.violation(x) * unit


@pytest.mark.parametrize("unit", UNITS)
def test_rounding_is_forgiven_in_every_unit(unit):
    p = BudgetQP(np.zeros((3, 3)), A=np.array([0.1, 0.2, -0.3]) * unit, upper=0.0, lower=0.0)
    assert p.violation([1, 1, 1]) == 0
    assert p.violation([1, 1, 0]) > 0


def test_a_costly_entry_that_is_off_forgives_nothing():
    p = BudgetQP(np.zeros((4, 4)), A=[1e12, 1, 1, 1], upper=2.0)
    assert p.violation([0, 1, 1, 1]) == 1.0


@pytest.mark.parametrize("unit", UNITS)
def test_impossible_rows_in_every_unit(unit):
    for limits in ({"upper": np.inf, "lower": 2.1 * unit}, {"upper": -0.1 * unit}):
        with pytest.raises(InfeasibleProblemError, match="row 0"):
            BudgetQP(np.zeros((2, 2)), A=[unit, unit], **limits)


@pytest.mark.parametrize("unit", UNITS)
def test_repair_in_every_unit(unit):
    # by flips; and by the MILP, since no flip nor exchange comes nearer to 8 than 7 is
    p = BudgetQP(np.zeros((3, 3)), [-3.0, -1.0, -2.0], A=np.full(3, unit), upper=2 * unit)
    np.testing.assert_array_equal(repair(p, [1, 1, 1]), [1, 0, 1])
    p = BudgetQP(np.zeros((3, 3)), A=np.array([3, 5, 7]) * unit, upper=8 * unit, lower=8 * unit)
    np.testing.assert_array_equal(repair(p, [0, 0, 1]), [1, 1, 0])


@pytest.mark.parametrize("unit", UNITS)
def test_the_penalty_form_in_every_unit(brute, unit):
    costs = np.array([1.0, 2.5, 3.0])
    p = BudgetQP(np.zeros((3, 3)), [-1, -2, -3], A=costs * unit, upper=4 * unit, lower=unit)
    form = to_penalty_qubo(p)
    z = min(brute.all(form.n_extended), key=form.qubo.energy)
    np.testing.assert_array_equal(form.extract(z), [1, 0, 1])


def test_the_penalty_form_keeps_whole_numbers_apart_in_a_row_of_large_ones():
    big = 2**38
    p = BudgetQP(np.zeros((3, 3)), [-1, -1, -1], A=[big, 2, 1], upper=2)
    form = to_penalty_qubo(p)
    assert p.violation([0, 1, 1]) == 1
    assert form.qubo.energy(form.extend([0, 1, 1])) > -2


def test_small_qubos_are_no_max_cut_by_smallness(tmp_path):
    with pytest.raises(ProblemError, match="not a max-cut"):
        write_rudy(QUBO([[1e-10, 2e-10], [2e-10, 3e-10]]), tmp_path / "g.rudy")
    write_rudy(maxcut_qubo([[0, 1e-12], [1e-12, 0]]), tmp_path / "g.rudy")
