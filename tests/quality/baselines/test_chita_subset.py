"""CHITA's subset search on quadratics small enough to know the answer."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.quality.baselines.chita_quadratic import Kernel, Point, SubsetQuadratic
from benchmarks.quality.baselines.chita_subset import SubsetSearch, critical_step, threshold_step
from benchmarks.quality.baselines.woodfisher import FisherBlock


def quadratic(
    p: int, n: int, seed: int = 0, *, ridge: float = 0.05, first_order: float = 1.0
) -> SubsetQuadratic:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(1, n))
    columns = rng.normal(size=(p, n)) + common * rng.normal(size=(p, 1))
    return SubsetQuadratic(
        torch.tensor(columns, dtype=torch.float32),
        torch.tensor(rng.normal(size=p)),
        torch.tensor(first_order * columns.mean(1)),
        torch.zeros(n, dtype=torch.float64),
        ridge,
    )


def hessian(q: SubsetQuadratic) -> Tensor:
    A = q.columns.double()
    return A @ A.T / q.n + q.ridge * torch.eye(q.p, dtype=torch.float64)


def direct_value(q: SubsetQuadratic, w: Tensor) -> float:
    d = w - q.center
    return float(q.linear @ d + 0.5 * d @ hessian(q) @ d)


def direct_minimum(q: SubsetQuadratic, support: list[int]) -> tuple[Tensor, float]:
    """Normal equations on the support: H_SS w_S = (H center - c)_S."""
    H, w = hessian(q), torch.zeros(q.p, dtype=torch.float64)
    if support:
        right = (H @ q.center - q.linear)[support]
        w[support] = torch.linalg.solve(H[support][:, support], right)
    return w, direct_value(q, w)


def magnitude_point(q: SubsetQuadratic, k: int) -> Point:
    support = q.center.abs().argsort(descending=True)[:k].sort().values
    w = torch.zeros_like(q.center)
    w[support] = q.center[support]
    return q.at(w, support)


def test_value_is_the_regression_of_the_paper_up_to_a_constant():
    """Q = (|y - Xw|^2 + n ridge |w - w_bar|^2) / 2n + constant, with X = A, y = A w_bar - e."""
    q = quadratic(12, 7)
    A = q.columns.double().T
    y = A @ q.center - torch.ones(q.n, dtype=torch.float64)
    gaps = []
    for seed in range(3):
        w = torch.tensor(np.random.default_rng(seed).normal(size=q.p))
        fit = (y - A @ w).square().sum() + q.n * q.ridge * (w - q.center).square().sum()
        gaps.append(float(fit) / (2 * q.n) - q.at(w, torch.arange(q.p)).value)
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-6)  # the columns are float32
    assert q.at(q.center.clone(), torch.arange(q.p)).value == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 10_000), st.data())
def test_gradient_solution_and_restriction(p: int, n: int, seed: int, data: st.DataObject):
    q = quadratic(p, n, seed)
    k = data.draw(st.integers(0, p))
    point = magnitude_point(q, k)
    assert point.value == pytest.approx(direct_value(q, point.w), rel=1e-9, abs=1e-9)
    slope = hessian(q) @ (point.w - q.center) + q.linear
    torch.testing.assert_close(q.gradient(point), slope)

    best, value = direct_minimum(q, point.support.tolist())
    solved = q.solved(point, Kernel())
    torch.testing.assert_close(solved.w, best, rtol=1e-6, atol=1e-6)
    assert solved.value == pytest.approx(value, rel=1e-9, abs=1e-9)

    # the same numbers over an active set that holds the support
    extra = data.draw(st.lists(st.integers(0, p - 1), max_size=p))
    active = torch.tensor(sorted({*point.support.tolist(), *extra}), dtype=torch.int64)
    inner = q.on(active)
    local = inner.at(point.w[active], torch.searchsorted(active, point.support))
    assert local.value == pytest.approx(point.value, rel=1e-9, abs=1e-9)
    torch.testing.assert_close(inner.gradient(local), q.gradient(point)[active])


def test_kernel_is_the_same_whether_updated_or_formed_anew():
    q = quadratic(40, 9)
    kernel = Kernel()
    for first in (0, 2, 3, 20):
        support = torch.arange(first, first + 18)
        A = q.columns[support].double().T
        L = kernel.factor(q, support)
        system = A @ A.T + q.n * q.ridge * torch.eye(q.n, dtype=torch.float64)
        torch.testing.assert_close(L @ L.T, system, rtol=1e-5, atol=1e-4)


def test_coordinate_descent_reaches_the_minimum_and_a_sweep_is_its_slow_twin():
    q = quadratic(10, 6)
    point = magnitude_point(q, 6)
    H, w = hessian(q), point.w.clone()
    for i in point.support.tolist():
        w[i] -= (H @ (w - q.center) + q.linear)[i] / H[i, i]
    torch.testing.assert_close(q.descended(point, 1).w, w, rtol=1e-6, atol=1e-6)
    _, value = direct_minimum(q, point.support.tolist())
    assert q.descended(point, 500).value == pytest.approx(value, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 10), st.integers(0, 10_000), st.data())
def test_critical_step_is_where_the_support_changes(p: int, seed: int, data: st.DataObject):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, p))
    w, gradient = np.zeros(p), rng.normal(size=p)
    w[:k] = rng.normal(size=k)
    tau = critical_step(torch.tensor(w), torch.tensor(gradient), torch.arange(k))

    def support(step: float) -> set[int]:
        return set(np.argsort(-np.abs(w - step * gradient), kind="stable")[:k].tolist())

    if tau == float("inf"):
        assert k == p or all(support(s) == set(range(k)) for s in (1e-3, 1.0, 1e3, 1e6))
    else:
        assert support(0.999 * tau) == set(range(k))
        assert support(1.001 * tau) != set(range(k))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000), st.data())
def test_search_falls_monotonically_to_a_sparse_stationary_point(
    p: int, seed: int, data: st.DataObject
):
    q = quadratic(p, 6, seed)
    k = data.draw(st.integers(0, p))
    values: list[float] = []
    point = SubsetSearch().run(q, k, values=values)
    assert all(b <= a + 1e-12 for a, b in pairwise(values))
    assert point.value <= values[-1] + 1e-12
    assert point.support.unique().numel() == k
    off = torch.ones(p, dtype=torch.bool)
    off[point.support] = False
    assert bool((point.w[off] == 0).all())
    slope = hessian(q) @ (point.w - q.center) + q.linear
    assert k == 0 or float(slope[point.support].abs().max()) < 1e-5


def test_no_threshold_step_is_left_at_the_end():
    q = quadratic(60, 20)
    point = SubsetSearch(tolerance=0.0, rounds=50, growths=50).run(q, 15)
    step = threshold_step(q, point)
    assert step is None or point.value - step.value <= 1e-9 * abs(point.value)


def test_against_enumeration():
    optima, found, starts = [], [], []
    for seed in range(8):
        q = quadratic(10, 8, seed)
        optima.append(min(direct_minimum(q, list(s))[1] for s in combinations(range(10), 4)))
        found.append(SubsetSearch().run(q, 4).value)
        starts.append(direct_minimum(q, magnitude_point(q, 4).support.tolist())[1])
    assert all(f >= o - 1e-9 for f, o in zip(found, optima, strict=True))
    assert np.sum(found) - np.sum(optima) < 0.5 * (np.sum(starts) - np.sum(optima))


def test_lower_than_magnitude_and_woodfisher_on_the_same_quadratic():
    """As the paper reports: the joint problem's objective is below those of the two."""
    for seed, k in ((0, 60), (1, 30), (2, 15)):
        q = quadratic(300, 80, seed, first_order=0.0, ridge=0.01)
        block = FisherBlock(q.columns.double(), q.ridge)
        score = q.center.square() / block.diagonal()
        gone = score.argsort()[: q.p - k]
        asked = torch.zeros_like(q.center)
        asked[gone] = -(q.center / block.diagonal())[gone]
        woodfisher = q.center + block.product(asked)
        woodfisher[gone] = 0.0
        magnitude = magnitude_point(q, k).value
        ours = SubsetSearch().run(q, k).value
        assert ours < 0.7 * min(magnitude, direct_value(q, woodfisher))


def test_dead_columns_equal_weights_and_a_deadline():
    q = quadratic(20, 5)
    columns = q.columns.clone()
    columns[3:9] = 0.0
    same = SubsetQuadratic(
        columns, torch.ones_like(q.center), torch.zeros_like(q.center), q.shift, q.ridge
    )
    point = SubsetSearch().run(same, 7)
    assert point.support.unique().numel() == 7
    assert np.isfinite(point.value)
    late = SubsetSearch().run(same, 7, deadline=0.0)
    assert late.support.unique().numel() == 7
    assert late.value <= magnitude_point(same, 7).value
