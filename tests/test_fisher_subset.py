"""The best subset on the Fisher model, against dense algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.fisher_subset import FisherSubset


def case(seed, samples=7, candidates=12, kept=5, ridge=0.3):
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(samples, candidates)).astype(np.float32)
    A = G.astype(np.float64).T @ G.astype(np.float64) / samples + ridge * np.eye(candidates)
    b = rng.normal(size=candidates)
    support = np.zeros(candidates, dtype=bool)
    support[rng.choice(candidates, kept, replace=False)] = True
    return FisherSubset(G, b, ridge, support), A, b, rng


def minimum(fit):
    """Of the model on the support, by the values found."""
    return -0.5 * float(fit.values() @ fit.b)


def least(A, b, support):
    s = np.flatnonzero(support)
    w = np.zeros(len(b))
    w[s] = np.linalg.solve(A[np.ix_(s, s)], b[s])
    return w, float(0.5 * w @ A @ w - b @ w)


@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(1, 20),
    kept=st.integers(0, 12),
    ridge=st.sampled_from([1e-3, 0.1, 3.0]),
)
@settings(deadline=None, max_examples=60)
def test_values_slopes_and_prices_are_those_of_dense_algebra(seed, samples, kept, ridge):
    fit, A, b, _ = case(seed, samples, kept=kept, ridge=ridge)
    w, q = least(A, b, fit.support)
    scale = 1.0 + np.abs(w).max() + np.abs(b).max() / ridge
    np.testing.assert_allclose(fit.values(), w, atol=2e-5 * scale)
    assert minimum(fit) == pytest.approx(q, abs=1e-5 * scale * np.abs(b).sum())
    slope = A @ w - b
    np.testing.assert_allclose(
        -fit.residual()[~fit.support], slope[~fit.support], atol=1e-4 * scale
    )
    h = fit.leverages()
    for j in range(len(b)):
        other = fit.support.copy()
        other[j] = not other[j]
        change = least(A, b, other)[1] - q
        if fit.support[j]:
            price = ridge * w[j] ** 2 / 2 / max(1.0 - h[j], 1e-12)
        else:
            price = -(slope[j] ** 2) / (2 * ridge * (1.0 + h[j]))
        assert price == pytest.approx(change, rel=2e-2, abs=1e-4 * scale * np.abs(b).sum())


@given(seed=st.integers(0, 10_000), kept=st.integers(1, 11), size=st.integers(2, 12))
@settings(deadline=None, max_examples=60)
def test_energy_of_a_batch_is_the_change_of_the_true_minimum(seed, kept, size):
    fit, A, b, rng = case(seed, kept=kept)
    batch = fit.batch(size)
    assert batch is not None
    assert len(batch.index) <= size
    assert batch.problem.energy(batch.x0) == pytest.approx(0.0, abs=1e-9)
    now = least(A, b, fit.support)[1]
    x = rng.permutation(batch.x0)
    moved = fit.support.copy()
    moved[batch.index] = x.astype(bool)
    want = least(A, b, moved)[1] - now
    assert batch.problem.energy(x) == pytest.approx(want, abs=1e-5)
    before = int(fit.support.sum())
    assert fit.exchange(batch, x) == int((x != batch.x0).sum())
    assert int(fit.support.sum()) == before
    # the sums that the exchange updates are those of the new support
    assert minimum(fit) == pytest.approx(now + want, abs=1e-4)


def test_a_batch_stays_within_its_budget():
    fit, *_ = case(3)
    among = np.arange(12) < 6
    batch = fit.batch(8, among)
    assert batch is None or (batch.index < 6).all()
    assert fit.batch(8, np.zeros(12, dtype=bool)) is None


def test_a_ridge_of_zero_is_refused():
    with pytest.raises(ValueError, match="ridge"):
        case(0, ridge=0.0)
