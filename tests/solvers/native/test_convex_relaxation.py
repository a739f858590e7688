"""The relaxation's kernels against slow twins, and the diagonals that make it convex."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from optiprune.problems import QUBO, CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers.native.convexify import Directions, semidefinite_diagonal, spectral_diagonal
from optiprune.solvers.native.instance import build_instance
from optiprune.solvers.native.relax_kernels import (
    descend,
    relaxed_fields,
    set_value,
    smallest,
    tangent,
)
from optiprune.solvers.native.relaxation import convex_forms, tangent_bound


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.data())
def test_smallest_is_that_of_a_sort(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values) - 1))
    buffer = np.array(values)
    assert smallest(buffer, len(values), k) == sorted(values)[k]
    assert (buffer[:k] <= buffer[k]).all()
    assert (buffer[k:] >= buffer[k]).all()


def _convex(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    return A @ A.T / n, rng.normal(size=n)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", [0, 1, 3])
def test_descent_reaches_the_minimum_that_scipy_finds(seed: int, groups: int) -> None:
    n = 12
    M, c = _convex(n, seed)
    starts = np.linspace(0, n, max(groups, 1) + 1).astype(np.int64)
    k = np.array([2] * groups, dtype=np.int64)
    x = np.full(n, 2 * max(groups, 1) / n)
    g, fix = np.empty(n), np.full(n, -1, np.int8)
    relaxed_fields(M, c, x, g)
    np.testing.assert_allclose(g, c + M @ x)
    descend(M, x, g, fix, starts, groups > 0, 100_000, 1e-12)
    np.testing.assert_allclose(g, c + M @ x, atol=1e-9)
    rows = [
        {"type": "eq", "fun": lambda v, s=slice(starts[a], starts[a + 1]): v[s].sum() - 2}
        for a in range(groups)
    ]
    best = minimize(
        lambda v: c @ v + 0.5 * v @ M @ v,
        np.full(n, 2 * max(groups, 1) / n),
        jac=lambda v: c + M @ v,
        bounds=[(0, 1)] * n,
        constraints=rows,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert c @ x + 0.5 * x @ M @ x == pytest.approx(best.fun, abs=1e-7)
    value, bound = tangent(
        c, x, g, fix, starts, groups > 0, k, np.empty(groups), np.empty(groups), np.empty(n)
    )
    assert value == pytest.approx(best.fun, abs=1e-7)
    assert best.fun - 1e-6 <= bound <= value + 1e-12


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_the_tangent_bounds_every_assignment_from_any_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = 9, int(rng.integers(0, 10))
    M, c = _convex(n, seed)
    x = rng.dirichlet(np.ones(n)) * k
    x = np.minimum(x, 1.0)
    x = x + (k - x.sum()) * (1 - x) / max(n - x.sum(), 1e-9) if k < n else np.ones(n)
    g, fix = np.empty(n), np.full(n, -1, np.int8)
    relaxed_fields(M, c, x, g)
    last, first = np.empty(1), np.empty(1)
    starts, need = np.array([0, n]), np.array([k])
    _, bound = tangent(c, x, g, fix, starts, True, need, last, first, np.empty(n))
    X = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)
    X = X[X.sum(1) == k]
    energies = X @ c + 0.5 * np.einsum("ij,jk,ik->i", X, M, X)
    assert bound <= energies.min() + 1e-9
    for m in range(n):  # what another value costs at least
        if g[m] > last[0]:
            with_it = energies[X[:, m] == 1]
            assert not len(with_it) or bound + g[m] - last[0] <= with_it.min() + 1e-9
        if g[m] < first[0]:
            without = energies[X[:, m] == 0]
            assert not len(without) or bound + first[0] - g[m] <= without.min() + 1e-9


@settings(deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_fixing_a_value_keeps_the_count_and_the_fields(seed: int, up: bool) -> None:
    rng = np.random.default_rng(seed)
    n = 8
    M, c = _convex(n, seed)
    x = rng.random(n)
    x[4:] *= 3 / x[4:].sum() if x[4:].sum() > 3 else 1.0
    total = x.sum()
    g, fix = np.empty(n), np.full(n, -1, np.int8)
    relaxed_fields(M, c, x, g)
    if set_value(M, x, g, fix, 2, float(up), 0, n):
        assert x.sum() == pytest.approx(total, abs=1e-11)
        assert x[2] == up
        assert fix[2] == up
        assert (x >= 0).all()
        assert (x <= 1).all()
        np.testing.assert_allclose(g, c + M @ x, atol=1e-9)
    else:
        assert total - up > n - 1 or total - up < 0


def test_no_room_in_the_group_is_said() -> None:
    M, c = _convex(3, 0)
    x, g, fix = np.ones(3), np.empty(3), np.full(3, -1, np.int8)
    relaxed_fields(M, c, x, g)
    assert not set_value(M, x, g, fix, 0, 0.0, 0, 3)


@pytest.mark.parametrize(("starts", "k"), [([0, 10], [4]), ([0, 3, 10], [1, 4]), ([0, 10], [])])
def test_diagonals_are_convex_and_the_semidefinite_one_is_best(
    starts: list[int], k: list[int]
) -> None:
    rng = np.random.default_rng(1)
    n = 10
    J = rng.normal(size=(n, n))
    J = J + J.T
    np.fill_diagonal(J, 0.0)
    a = rng.normal(size=n)
    directions = Directions.of(n, np.array(starts), np.array(k, dtype=np.int64))
    V = directions.tangent
    candidates = spectral_diagonal(J, np.ones(n), directions)
    best = semidefinite_diagonal(J, a, directions, iterations=500)
    assert best is not None
    for d in [*candidates, best]:
        least = np.linalg.eigvalsh(V.T @ (J + np.diag(d)) @ V)[0]
        assert 0.0 <= least <= 1e-8
    Q, linear = J / 2, a
    problem = (
        CardinalityQP(Q, linear, k=k, groups=np.repeat(np.arange(len(k)), np.diff(starts)))
        if k
        else QUBO(Q, linear)
    )
    forms = list(convex_forms(build_instance(problem, "float64"), problem.diagonal()))
    bounds = [tangent_bound(f) for f in forms]
    assert forms[-1].method == "semidefinite programme"
    assert bounds[-1] >= max(bounds[:-1]) - 1e-3 * abs(max(bounds))


def test_forms_agree_with_the_problem_on_feasible_assignments() -> None:
    problem = layer_problem(12, 5, seed=3)
    inst = build_instance(problem, "float64")
    rng = np.random.default_rng(0)
    for form in convex_forms(inst, problem.diagonal()):
        for _ in range(5):
            x = np.zeros(12, np.int8)
            x[rng.choice(12, 5, replace=False)] = 1
            y = inst.inward(x).astype(float)
            energy = form.scale * (form.c @ y + 0.5 * y @ form.M @ y) + inst.offset
            assert energy == pytest.approx(problem.energy(x), rel=1e-9)


def test_without_time_there_is_still_a_form() -> None:
    problem = layer_problem(12, 5, seed=3)
    inst = build_instance(problem, "float64")
    forms = list(convex_forms(inst, problem.diagonal(), deadline=0.0))
    assert [f.method for f in forms] == ["diagonal dominance"]
