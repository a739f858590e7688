import numpy as np
import pytest

from optiprune.solvers.native.vector import (
    argmax,
    noisy_argmax,
    noisy_max,
    sum_argmax,
    sum_max,
    vmax,
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 64, 100, 257])
def test_scans_equal_numpy(n, dtype):
    r = np.random.default_rng(n)
    for share in (0.0, 0.5, 1.0):
        u = r.standard_normal(n).astype(dtype)
        v = r.standard_normal(n).astype(dtype)
        noise = r.gumbel(size=n).astype(dtype)
        mask = np.where(r.random(n) < share, -np.inf, 0.0).astype(dtype)
        t = dtype(0.3)
        masked = u + mask
        empty = n == 0 or np.isinf(mask).all()
        assert vmax(masked) == (-np.inf if empty else masked.max())
        assert argmax(masked) == (-1 if empty else masked.argmax())
        assert sum_max(masked, v) == (-np.inf if empty else (masked + v).max())
        assert sum_argmax(masked, v) == (-1 if empty else (masked + v).argmax())
        total = u + v + mask + t * noise
        if empty:
            assert noisy_max(u, v, mask, t, noise) == -np.inf
            assert noisy_argmax(u, v, mask, t, noise) == -1
        else:
            assert noisy_max(u, v, mask, t, noise) == pytest.approx(total.max(), rel=1e-5)
            assert noisy_argmax(u, v, mask, t, noise) == total.argmax()


def test_ties_go_to_the_first():
    assert argmax(np.array([1.0, 3.0, 3.0, 2.0])) == 1
    assert argmax(np.array([0.0] * 40 + [5.0] + [0.0] * 30 + [5.0])) == 40
