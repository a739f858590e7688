"""A diagonal and low rank, restricted to supports: what they are, and what they bring."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune import conjugate_gradients, preconditioner
from optiprune.conjugate_gradients import solve_supports
from optiprune.preconditioner import Preconditioner, leading, pairs_of, precondition


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def falling(cols=200, samples=1000, power=1.0, seed=0):
    """A Gram matrix whose spectrum falls like that of activations."""
    scale = torch.arange(1, cols + 1, dtype=torch.float64) ** -power
    x = rand(samples, cols, seed=seed) * scale @ torch.linalg.qr(rand(cols, cols, seed=seed + 1))[0]
    return x.T @ x


@given(
    cols=st.integers(2, 40),
    rank=st.integers(1, 12),
    samples=st.integers(1, 80),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_what_it_takes_away_leaves_no_negative_direction(cols, rank, samples, seed):
    x = rand(samples, cols, seed=seed)
    H = x.T @ x
    U = leading(H, min(rank, cols)).double()
    left = torch.linalg.eigvalsh(H - U @ U.T)
    assert float(left.min()) >= -1e-5 * float(H.diagonal().max() * cols)
    assert torch.equal(U, leading(H, min(rank, cols)).double())


def test_it_takes_the_largest_directions():
    H = falling()
    U = leading(H, 20).double()
    e = torch.linalg.eigvalsh(H).flip(0)
    assert float(torch.linalg.matrix_norm(H - U @ U.T, 2)) <= 1.5 * float(e[20])


@pytest.mark.parametrize("pairs", [7, 2048])
def test_the_inverse_is_that_of_the_dense_matrix_on_the_support(monkeypatch, pairs):
    monkeypatch.setattr(preconditioner, "_PAIRS", pairs)
    H = falling(cols=60)
    U = leading(H, 8)
    mask = rand(5, 60, seed=3) > 0
    mask[4] = False
    ridge = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    apply = precondition(H.diagonal(), ridge, U, pairs_of(U), mask)
    r = torch.where(mask, rand(5, 60, seed=4), 0.0)
    got = apply(r.float())
    for i in range(5):
        s = mask[i]
        left = H.diagonal() - U.double().square().sum(1)
        P = torch.diag(left + ridge[i]) + U.double() @ U.double().T
        want = torch.zeros(60, dtype=torch.float64)
        want[s] = torch.linalg.solve(P[s][:, s], r[i, s])
        scale = float(want.abs().max())
        torch.testing.assert_close(got[i].double(), want, rtol=1e-3, atol=1e-4 * scale)
    some = torch.tensor([3, 0])
    torch.testing.assert_close(apply.of(some)(r[some].float()), got[some])


@pytest.mark.parametrize("ridge", [0.0, 1e-12, 1.0])
def test_zeros_dead_inputs_and_low_ranks_pass(ridge):
    H = torch.zeros(30, 30, dtype=torch.float64)
    mask = torch.ones(4, 30, dtype=torch.bool)
    ridges = torch.full((4,), ridge, dtype=torch.float64)
    r = torch.ones(4, 30)
    U = leading(H, 6)
    apply = precondition(H.diagonal(), ridges, U, pairs_of(U), mask)
    assert bool(torch.isfinite(apply(r)).all())
    x = rand(3, 30)
    H = x.T @ x  # rank 3: the sketch is cut there
    H[:, 5], H[5] = 0.0, 0.0
    U = leading(H, 6)
    assert U.shape == (30, 3)
    assert not bool(U[5].any())
    assert bool(torch.isfinite(precondition(H.diagonal(), ridges, U, pairs_of(U), mask)(r)).all())


def test_conjugate_gradients_take_fewer_steps(monkeypatch):
    H, w = falling(cols=300), rand(40, 300, seed=5)
    mask = rand(40, 300, seed=6) > 0
    ridge = torch.full((40,), 1e-3 * float(H.diagonal().mean()), dtype=torch.float64)
    b, v = w @ H, torch.where(mask, w, 0.0)
    c = (b * w).sum(1)
    steps = []
    apply = Preconditioner.__call__

    def counted(self, r):
        steps[-1] += 1
        return apply(self, r)

    monkeypatch.setattr(Preconditioner, "__call__", counted)
    found = []
    for few in (None, lambda H, rank: H.new_zeros((len(H), 0), dtype=torch.float32)):
        if few is not None:
            monkeypatch.setattr(conjugate_gradients, "leading", few)
        steps.append(0)
        x, good, _ = solve_supports(H, b, v, c, mask, ridge, v)
        assert bool(good.all())
        found.append(x)
    assert 0 < 2 * steps[0] < steps[1]
    error = [((x - w) @ H * (x - w)).sum() for x in found]
    torch.testing.assert_close(error[0], error[1], rtol=1e-4, atol=0.0)
