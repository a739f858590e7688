"""A model in whole numbers: no feasible point is lost and the bound holds for the real costs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from optiprune.problems import QUBO, BudgetQP, linearise
from optiprune.problems.generators import layer_problem
from optiprune.solvers import UnsupportedProblemError
from optiprune.solvers.adapters.integer_form import integer_form


def points(n: int, count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, size=(count, n))


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12, 1e-200])
def test_the_bound_holds_in_exact_arithmetic(scale: float) -> None:
    rng = np.random.default_rng(1)
    problem = QUBO(scale * rng.normal(size=(9, 9)), scale * rng.normal(size=9))
    model = linearise(problem)
    form = integer_form(model)
    assert np.abs(form.c).sum() < 2**51
    exact = [Fraction(v) for v in model.c]
    for x in points(9):
        z = model.extend(x).astype(int)
        whole = int(form.c @ z)
        real = sum((c for c, v in zip(exact, z, strict=True) if v), Fraction(0))
        bound = form.bound(float(whole))
        assert Fraction(bound) <= real
        assert float(real) - bound < 1e-12 * np.abs(model.c).sum()


def test_rows_keep_every_point_that_met_them() -> None:
    rng = np.random.default_rng(2)
    A = rng.uniform(0.1, 1.0, size=(3, 12))
    total = float(A[1, :5].sum())
    problem = BudgetQP(
        np.eye(12), A=A, upper=[A[0].sum() / 2, total, np.inf], lower=[-np.inf, total, 1.0]
    )
    model = linearise(problem)
    form = integer_form(model)
    first = np.r_[np.ones(5), np.zeros(7)].astype(int)
    for x in [first, *points(12)]:
        z = model.extend(x).astype(int)
        for r in range(3):
            part = slice(form.indptr[r], form.indptr[r + 1])
            value = int(form.data[part] @ z[form.indices[part]])
            meets = problem.lower[r] <= A[r] @ x <= problem.upper[r]
            assert (form.lower[r] <= value <= form.upper[r]) or not meets
            # and nothing that is far from meeting it
            far = max(problem.lower[r] - A[r] @ x, A[r] @ x - problem.upper[r]) > 1e-9
            assert not (far and form.lower[r] <= value <= form.upper[r])


def test_whole_rows_stay_as_they_are() -> None:
    form = integer_form(linearise(layer_problem(6, 3)))
    assert form.data[form.indptr[0] : form.indptr[1]].tolist() == [1] * 6
    assert (form.lower[0], form.upper[0]) == (3, 3)


def test_helpers_that_are_not_binary_are_refused() -> None:
    with pytest.raises(UnsupportedProblemError, match="fortet"):
        integer_form(linearise(layer_problem(6, 3), method="glover"))
