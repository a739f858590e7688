"""Conjugate gradients on supports, against factorisations."""

from __future__ import annotations

import pytest
import torch

from optiprune import conjugate_gradients, refit
from optiprune.conjugate_gradients import solve_supports
from optiprune.refit import refit_rows


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(cols=300, rows=30, samples=2000, spread=1.0):
    scale = torch.logspace(0, torch.tensor(spread).log10(), cols, dtype=torch.float64)
    x = rand(samples, cols) @ rand(cols, cols, seed=1) / cols**0.5 * scale
    return x.T @ x / samples, rand(rows, cols, seed=2), rand(rows, cols, seed=3) > 0


def solved(H, w, mask, ridge, start=None, v=None):
    b, c = w @ H, ((w @ H) * w).sum(1)
    v = torch.where(mask, w, 0.0) if v is None else v
    start = torch.zeros_like(w) if start is None else start
    x, good, error = solve_supports(H, b, v, c, mask, ridge, start)
    told = ((x @ H - 2.0 * b) * x).sum(1) + c
    torch.testing.assert_close(error[good], told[good], rtol=1e-9, atol=1e-9 * float(c.max()))
    assert bool(error[~good].isnan().all())
    return x, good


def objective(H, w, v, ridge, x):
    return float((x - w) @ H @ (x - w) + ridge * (x - v) @ (x - v))


@pytest.mark.parametrize("spread", [1.0, 1e3])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_solutions_are_those_of_a_factorisation(spread, share):
    H, w, _ = problem(spread=spread)
    mask = torch.rand(w.shape, generator=torch.Generator().manual_seed(3)) > share
    ridge = torch.full((len(w),), 1e-3 * float(H.diagonal().mean()), dtype=torch.float64)
    x, good = solved(H, w, mask, ridge)
    assert bool(good.all())
    assert bool((x[~mask] == 0).all())
    for i in range(len(w)):
        s, lam = mask[i], float(ridge[i])
        best = torch.zeros_like(w[i])
        A = H[s][:, s] + lam * torch.eye(int(s.sum()), dtype=torch.float64)
        best[s] = torch.linalg.solve(A, (w[i] @ H)[s] + lam * w[i, s])
        v = torch.where(s, w[i], 0.0)
        want, got = (objective(H, w[i], v, lam, y) for y in (best, x[i]))
        assert want <= got <= 1.0001 * want


def test_it_starts_where_it_is_told_and_empty_supports_are_zero():
    H, w, mask = problem(rows=20)
    mask[3] = False
    ridge = torch.full((len(w),), 0.01, dtype=torch.float64)
    x, good = solved(H, w, mask, ridge)
    again, still = solved(H, w, mask, ridge, start=x)
    assert bool(good.all())
    assert bool(still.all())
    torch.testing.assert_close(again, x, rtol=1e-2, atol=1e-3)
    assert not bool(x[3].any())


def test_what_is_solved_already_gets_no_worse():
    H, w, mask = problem()
    ridge = torch.full((len(w),), 0.01, dtype=torch.float64)
    x, _ = solved(H, w, mask, ridge)
    again, good = solved(H, w, mask, ridge, start=x)
    assert bool(good.all())
    v = torch.where(mask, w, 0.0)
    for i in range(len(w)):
        first, second = (objective(H, w[i], v[i], 0.01, y) for y in (x[i], again[i]))
        assert (1.0 - 1e-5) * first <= second <= (1.0 + 1e-9) * first


def test_a_larger_tolerance_stops_earlier_and_says_what_is_left():
    H, w, mask = problem(spread=1e3)
    ridge = torch.full((len(w),), 1e-3 * float(H.diagonal().mean()), dtype=torch.float64)
    b, c, v = w @ H, ((w @ H) * w).sum(1), torch.where(mask, w, 0.0)
    found = []
    for tolerance in (1e-2, 2e-6):
        x, good, _ = solve_supports(H, b, v, c, mask, ridge, torch.zeros_like(w), tolerance)
        assert bool(good.all())
        lost = [objective(H, w[i], v[i], float(ridge[i]), x[i]) for i in range(len(w))]
        found.append(torch.tensor(lost))
    rough, exact = found
    assert bool((rough > exact).any())
    assert bool((rough <= 1.1 * exact).all())


@pytest.mark.parametrize("fewest", [1, 7, 1000])
def test_rows_may_go_in_parts(monkeypatch, fewest):
    H, w, mask = problem(spread=100.0)
    ridge = torch.full((len(w),), 0.01, dtype=torch.float64)
    whole, _ = solved(H, w, mask, ridge)
    monkeypatch.setattr(conjugate_gradients, "_CACHED", 1)
    monkeypatch.setattr(conjugate_gradients, "_FEWEST", fewest)
    x, good = solved(H, w, mask, ridge)
    assert bool(good.all())
    for i in range(len(w)):
        at = (float(ridge[i]), torch.where(mask[i], w[i], 0.0))
        least = objective(H, w[i], at[1], at[0], whole[i])
        assert objective(H, w[i], at[1], at[0], x[i]) == pytest.approx(least, rel=1e-3)


def test_no_rows_are_no_trouble():
    H, w, mask = problem()
    rows, flags, none = w[:0], mask[:0], w[:0, 0]
    x, good, error = solve_supports(H, rows, rows, none, flags, none, rows)
    assert (x.shape, good.shape, error.shape) == ((0, 300), (0,), (0,))


def test_dead_inputs_and_zero_matrices_pass():
    H, w, mask = problem()
    H[:, 5], H[5] = 0.0, 0.0
    ridge = torch.full((len(w),), 0.01, dtype=torch.float64)
    x, good = solved(H, w, mask, ridge)
    assert bool(good.all())
    assert torch.equal(x[:, 5], torch.where(mask, w, 0.0)[:, 5])  # as training chose
    x, good = solved(torch.zeros_like(H), w, mask, 0 * ridge)
    assert bool(good.all())
    assert not bool(x.any())


def test_full_supports_give_the_dense_weights_back():
    H, w, mask = problem(rows=4)  # too few for anything but the diagonal
    ridge = torch.full((len(w),), 0.01, dtype=torch.float64)
    x, good = solved(H, w, torch.ones_like(mask), ridge)
    assert bool(good.all())
    torch.testing.assert_close(x, w, rtol=1e-4, atol=1e-4)


def test_what_has_no_minimum_is_not_good():
    H, w, mask = problem()
    H = 4.0 * H.diagonal().max() * torch.ones_like(H)  # positive diagonal, negative directions
    H.diagonal().mul_(0.5)
    _, good = solved(H, w, mask, torch.zeros(len(w), dtype=torch.float64))
    assert not bool(good.any())


@pytest.mark.parametrize("damping", [0.0, 1e-4, 0.1])
def test_a_refit_of_large_supports_is_that_of_factorisations(monkeypatch, damping):
    H, w, _ = problem(cols=420, rows=24)
    mask = rand(24, 420, seed=5) > torch.linspace(-3, 3, 24)[:, None]  # large and small supports
    H = torch.stack([H, 2.0 * H.flip(0, 1)])
    b = torch.cat([w[:12] @ H[0], w[12:] @ H[1]])
    energy = (b * w).sum(1)
    arguments = (H, b, energy, mask, torch.where(mask, w, 0.0), damping)
    fast = refit_rows(*arguments)
    monkeypatch.setattr(refit, "_MANY", 10**9)
    exact = refit_rows(*arguments)
    assert bool((fast.error_after <= fast.error_before).all())
    unit = damping * H.diagonal(dim1=1, dim2=2).mean(1).repeat_interleave(12)

    def pulled(fit):
        return fit.error_after + unit * (fit.values - torch.where(mask, w, 0.0)).square().sum(1)

    torch.testing.assert_close(pulled(fast), pulled(exact), rtol=1e-3, atol=1e-9)
    assert not bool(fast.failed.any())
