"""The problem of a batch predicts exactly what the quadratic predicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.curvature import LocalQuadratic
from optiprune.problems import ProblemError


def quadratic(
    seed: int, b: int, n: int, ridge: float, factored: bool
) -> tuple[LocalQuadratic, np.ndarray]:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=b).astype(np.float32)
    kept = rng.random(b) < 0.5
    factor = rng.normal(size=(n, b)).astype(np.float32)
    g = rng.normal(size=b).astype(np.float32)
    v = np.where(kept, w, 0).astype(np.float32)
    if factored:
        return LocalQuadratic(w, v, g, factor=factor, ridge=ridge), kept
    h = factor.astype(np.float64).T @ factor.astype(np.float64) / n
    return LocalQuadratic(w, v, g, H=h, ridge=ridge), kept


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    b=st.integers(1, 12),
    n=st.integers(1, 30),
    ridge=st.sampled_from([0.0, 0.01, 3.0]),
    factored=st.booleans(),
)
def test_energy_is_the_change_of_the_quadratic(
    seed: int, b: int, n: int, ridge: float, factored: bool
) -> None:
    q, kept = quadratic(seed, b, n, ridge, factored)
    problem = q.problem(k=int(kept.sum()))
    rng = np.random.default_rng(seed + 1)
    for x in [*(rng.random((5, b)) < 0.5), kept]:
        want = q.change(x * q.w.astype(np.float64) - q.v)
        # float32 products, summed by BLAS: the error bound scales with the size of the terms
        scale = 1 + np.abs(q.w).max() ** 2 * b * b * (
            1 + ridge + np.abs(q.factor if factored else q.H).max() ** 2
        )
        assert problem.energy(x) == pytest.approx(want, abs=float(2e-6 * scale))
    assert problem.energy(kept) == pytest.approx(0.0, abs=float(1e-4 * scale))


def test_energy_by_hand() -> None:
    # two weights, the first kept: w = (2, 3), g = (1, -1), H = [[1, 0.5], [0.5, 2]], rho = 0
    q = LocalQuadratic(
        w=np.array([2.0, 3.0]),
        v=np.array([2.0, 0.0]),
        gradient=np.array([1.0, -1.0]),
        H=np.array([[1.0, 0.5], [0.5, 2.0]]),
    )
    problem = q.problem(k=1)
    # prune the first, restore the second: delta = (-2, 3)
    # g'd = -2 - 3 = -5; d'Hd / 2 = (4 - 6 + 18) / 2 = 8
    assert problem.energy([0, 1]) == pytest.approx(3.0)
    assert problem.energy([1, 0]) == pytest.approx(0.0)
    # prune both: delta = (-2, 0): -2 + 2 = 0
    assert problem.energy([0, 0]) == pytest.approx(0.0)


def test_terms_of_both_signs_survive() -> None:
    q, kept = quadratic(0, 30, 10, 0.0, True)
    off = q.problem(k=int(kept.sum())).dense()[~np.eye(30, dtype=bool)]
    assert (off < 0).mean() > 0.2
    assert (off > 0).mean() > 0.2


def test_float32_matrix_is_close_to_float64() -> None:
    # the bound that the engine relies on: relative error of the energy at N = 1000, b = 512
    q, kept = quadratic(3, 512, 1000, 0.01, True)
    exact = q.change(~kept * q.w.astype(np.float64) - q.v)
    got = q.problem(k=int(kept.sum())).energy(~kept)
    assert got == pytest.approx(exact, rel=1e-4)


def test_bad_shapes_are_refused() -> None:
    one = np.ones(3)
    with pytest.raises(ProblemError, match="either H or factor"):
        LocalQuadratic(one, one, one)
    with pytest.raises(ProblemError, match="gradient"):
        LocalQuadratic(one, one, np.ones(2), H=np.eye(3))
    with pytest.raises(ProblemError, match="H must"):
        LocalQuadratic(one, one, one, H=np.eye(2))
    with pytest.raises(ProblemError, match="ridge"):
        LocalQuadratic(one, one, one, H=np.eye(3), ridge=-1)
