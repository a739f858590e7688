"""The best weights of an MIQP on a support, against first-order conditions and enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import MIQP, FactoredMatrix, InfeasibleProblemError, ProblemError
from optiprune.problems.boxqp import RANK


def box_minimum_by_enumeration(h, b, m):
    """The best stationary point in the box, over lower, free or upper for each weight."""
    best = np.inf
    for pattern in itertools.product((-1, 0, 1), repeat=len(b)):
        sign = np.array(pattern)
        w = np.where(sign != 0, sign * m, 0.0)
        if not np.isfinite(w).all():
            continue
        free = sign == 0
        if free.any():
            hf = h[np.ix_(free, free)]
            w[free] = np.linalg.lstsq(hf, b[free] - h[np.ix_(free, ~free)] @ w[~free], rcond=1e-10)[
                0
            ]
        if (np.abs(w) <= m + 1e-9).all():
            best = min(best, 0.5 * w @ h @ w - b @ w)
    return best


def test_by_hand():
    # unconstrained: w = (2, 1); with M = 1.5 the first stops at 1.5
    p = MIQP(np.diag([1.0, 2.0]), [2.0, 2.0], k=2, offset=3.0)
    np.testing.assert_allclose(p.weights([1, 1]), [2.0, 1.0])
    assert p.energy([1, 1]) == pytest.approx(3.0 - 2.0 - 1.0)
    assert p.energy([0, 1]) == pytest.approx(3.0 - 1.0)
    assert p.energy([0, 0]) == 3.0
    q = MIQP(np.diag([1.0, 2.0]), [2.0, 2.0], k=2, M=1.5)
    np.testing.assert_allclose(q.weights([1, 1]), [1.5, 1.0])


def test_singular_with_a_bound_goes_to_the_bound():
    # the second weight has no curvature and a pull: only M stops it
    p = MIQP(np.diag([1.0, 0.0]), [0.5, 1.0], k=2, M=3.0)
    np.testing.assert_allclose(p.weights([1, 1]), [0.5, 3.0])
    assert p.energy([1, 1]) == pytest.approx(-0.125 - 3.0)
    # a bound on that weight is enough
    q = MIQP(np.diag([1.0, 0.0]), [0.5, -1.0], k=2, M=[np.inf, 3.0])
    np.testing.assert_allclose(q.weights([1, 1]), [0.5, -3.0])


def test_unbounded_is_refused():
    p = MIQP(np.diag([1.0, 0.0]), [0.5, 1e-9], k=2)
    with pytest.raises(ProblemError, match="unbounded below"):
        p.energy([0, 1])
    assert p.energy([1, 0]) == pytest.approx(-0.125)


def test_singular_and_consistent_gives_the_least_norm():
    p = MIQP(np.ones((2, 2)), [1.0, 1.0], k=2)
    np.testing.assert_allclose(p.weights([1, 1]), [0.5, 0.5], atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("apart", [1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
def test_nearly_collinear_weights_stay_in_proportion_to_what_they_gain(apart, scale):
    """One rule at any scale: |w|^2, for a diagonal of 1, is at most 2 gain / RANK."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        G = rng.normal(size=(4, 3))
        G[:, 1] = G[:, 0] + apart * rng.normal(size=4)
        G /= np.linalg.norm(G, axis=0)
        p = MIQP(scale * (G.T @ G), scale * (G.T @ rng.normal(size=4)), k=3)
        w = p.weights([1, 1, 1])
        gain = -p.energy([1, 1, 1]) / scale
        assert w @ w <= 2.0 * gain / RANK * (1.0 + 1e-6)
        # the first two as one, or better
        assert p.energy([1, 1, 1]) <= p.energy([1, 0, 1]) + 1e-4 * scale
        d = 10.0 ** rng.integers(-3, 4, size=3)
        q = MIQP(p.H * np.outer(d, d), p.b * d, k=3)
        assert q.energy([1, 1, 1]) == pytest.approx(p.energy([1, 1, 1]), rel=1e-5)


def test_a_small_difference_of_columns_is_no_unbounded_energy():
    """b has a part along a direction that is not used, but the energy has a minimum."""
    G = np.array([[1.0, 1.0], [0.0, 1e-5]])
    p = MIQP(G.T @ G, G.T @ [1.0, 5.0], k=2)
    assert p.energy([1, 1]) == pytest.approx(-0.5, rel=1e-3)


def test_active_bounds_with_nearly_collinear_weights():
    rng = np.random.default_rng(1)
    for _ in range(200):
        n = int(rng.integers(2, 6))
        G = rng.normal(size=(n, 1)) + 10.0 ** rng.uniform(-9, -3) * rng.normal(size=(n, n))
        M = rng.uniform(0.01, 1.0, n)
        p = MIQP(G.T @ G, G.T @ rng.normal(size=n), k=n, M=M)
        w = p.weights(np.ones(n))
        assert (np.abs(w) <= M).all()
        want = box_minimum_by_enumeration(p.H, p.b, M)
        assert p.energy(np.ones(n)) == pytest.approx(want, abs=2e-3 * np.abs(p.b).max())


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 100_000))
def test_bounded_weights_are_optimal(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    rank = int(rng.integers(1, n + 2))
    f = rng.normal(size=(rank, n))
    m = np.where(rng.random(n) < 0.15, 0.0, rng.uniform(0.1, 1.5, n))
    b = rng.normal(size=n)
    p = MIQP(f.T @ f, b, k=n, M=m)
    w = p.weights(np.ones(n))
    assert (np.abs(w) <= m + 1e-12).all()
    want = box_minimum_by_enumeration(f.T @ f, b, m)
    assert p.energy(np.ones(n)) == pytest.approx(want, abs=1e-7)
    g = FactoredMatrix(f)
    assert MIQP(g, b, k=n, M=m).energy(np.ones(n)) == pytest.approx(want, abs=1e-7)


def test_many_active_bounds():
    rng = np.random.default_rng(3)
    n = 120
    f = rng.normal(size=(200, n))
    H, b = f.T @ f / 200, rng.normal(size=n)
    p = MIQP(H, b, k=n, M=0.3)
    w = p.weights(np.ones(n))
    g = H @ w - b
    assert (np.abs(w) == 0.3).sum() > 20
    inside = np.abs(w) < 0.3
    # stationary inside, pushed outwards at the bounds
    assert np.abs(g[inside]).max() < 1e-9
    assert (g[~inside] * np.sign(w[~inside]) < 1e-9).all()


def test_support_and_violation():
    p = MIQP(np.eye(3), [1.0, 2.0, 3.0], k=2)
    assert p.violation([1, 1, 1]) == 1
    assert p.is_feasible([0, 1, 1])
    assert p.weights([0, 1, 1])[0] == 0
    assert p.energy([0, 1, 1]) == pytest.approx(-6.5)


@pytest.mark.parametrize("n", [0, 1])
def test_smallest(n):
    p = MIQP(np.eye(n), np.ones(n), k=n, offset=1.0)
    assert p.energy(np.ones(n)) == pytest.approx(1.0 - 0.5 * n)


@pytest.mark.parametrize(
    ("b", "options", "error"),
    [
        ([1.0], {"k": 1}, ProblemError),
        ([1.0, np.nan], {"k": 1}, ProblemError),
        ([1.0, 1.0], {"k": 3}, InfeasibleProblemError),
        ([1.0, 1.0], {"k": -1}, InfeasibleProblemError),
        ([1.0, 1.0], {"k": 1.5}, ProblemError),
        ([1.0, 1.0], {"k": "a"}, ProblemError),
        ([1.0, 1.0], {"k": np.inf}, ProblemError),
        ([1.0, 1.0], {"k": 1, "M": -1.0}, ProblemError),
        ([1.0, 1.0], {"k": 1, "M": np.nan}, ProblemError),
        ([1.0, 1.0], {"k": 1, "M": [1.0, 2.0, 3.0]}, ProblemError),
        ([1.0, 1.0], {"k": 1, "offset": np.nan}, ProblemError),
    ],
)
def test_malformed(b, options, error):
    with pytest.raises(error):
        MIQP(np.eye(2), b, **options)


@pytest.mark.parametrize("w", [[1.0], [np.nan, 0.0], [[1.0, 2.0]]])
def test_bad_weights(w):
    with pytest.raises(ProblemError):
        MIQP(np.eye(2), [1.0, 1.0], k=1).energy_of(w)
