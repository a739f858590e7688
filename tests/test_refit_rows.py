"""Refit of kept weights: against scipy's least squares, and where matrices are singular."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import lstsq

from optiprune.refit import RefitError, refit_rows


def problem(rng, rows=6, cols=9, n=60, groups=1, density=0.5):
    X = rng.normal(size=(groups, n, cols)) @ rng.normal(size=(groups, cols, cols))
    dense = rng.normal(size=(rows, cols))
    by_group = dense.reshape(groups, -1, cols)
    Y = X @ by_group.transpose(0, 2, 1)
    H = X.transpose(0, 2, 1) @ X / n
    mask = rng.random((rows, cols)) < density
    target = (by_group @ H).reshape(rows, cols)
    energy = (Y**2).mean(1).reshape(-1)
    tensors = [torch.from_numpy(a) for a in (H, target, energy, mask, dense)]
    return X, Y, tensors


def test_hand_derived_row():
    # H = [[2, 1], [1, 2]], dense row (1, 1): b = (3, 3), c = 6. On the support {0}: w = 3/2,
    # error 2 * 9/4 - 2 * 3 * 3/2 + 6 = 3/2; before, at w = 1: 2 - 6 + 6 = 2.
    H = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]], dtype=torch.float64)
    out = refit_rows(
        H, torch.tensor([[3.0, 3.0]]), torch.tensor([6.0]), torch.tensor([[True, False]]),
        torch.tensor([[1.0, 1.0]]), damping=0.0,
    )  # fmt: skip
    assert out.values.tolist() == [[pytest.approx(1.5), 0.0]]
    assert out.error_before.tolist() == [2.0]
    assert out.error_after.tolist() == [pytest.approx(1.5)]
    # damping 1 in units of the mean diagonal 2 pulls to the old value: (2 + 2) w = 3 + 2
    out = refit_rows(
        H, torch.tensor([[3.0, 3.0]]), torch.tensor([6.0]), torch.tensor([[True, False]]),
        torch.tensor([[1.0, 1.0]]), damping=1.0,
    )  # fmt: skip
    assert out.values[0, 0].item() == pytest.approx(1.25)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3]), st.floats(0.1, 1.0))
def test_equals_scipy_least_squares(seed, groups, density):
    rng = np.random.default_rng(seed)
    X, Y, args = problem(rng, groups=groups, density=density)
    out = refit_rows(*args, damping=0.0)
    mask = args[3].numpy()
    for r in range(6):
        g, j = r // (6 // groups), r % (6 // groups)
        s = np.flatnonzero(mask[r])
        w = np.zeros(9)
        if s.size:
            w[s] = lstsq(X[g][:, s], Y[g][:, j])[0]
        assert np.allclose(out.values[r].numpy(), w, atol=1e-6 * (1 + np.abs(w).max()))
        residual = ((X[g] @ w - Y[g][:, j]) ** 2).mean()
        assert out.error_after[r].item() == pytest.approx(residual, rel=1e-6, abs=1e-9)
    assert not out.failed.any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from([0.0, 1e-6, 1e-2]))
def test_never_worse_and_zero_off_the_support(seed, n, damping):
    # fewer samples than columns: H is singular
    rng = np.random.default_rng(seed)
    _, _, args = problem(rng, n=n)
    out = refit_rows(*args, damping=damping)
    assert (out.error_after <= out.error_before).all()
    assert (out.values[~args[3]] == 0).all()
    assert torch.isfinite(out.values).all()


def test_dead_input_keeps_its_weight():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4))
    X[:, 2] = 0.0
    dense = torch.from_numpy(rng.normal(size=(1, 4)))
    H = torch.from_numpy(X.T @ X / 50)[None]
    mask = torch.tensor([[True, False, True, True]])
    energy = ((dense @ H[0]) * dense).sum(1)
    out = refit_rows(H, dense @ H[0], energy, mask, dense, damping=1e-4)
    assert out.values[0, 2].item() == pytest.approx(dense[0, 2].item())
    assert not out.failed.any()
    assert not out.raised.any()
    # without damping the factorisation fails: some is added, and said so
    out = refit_rows(H, dense @ H[0], energy, mask, dense, damping=0.0)
    assert out.raised.tolist() == [True]
    assert out.damping[0] > 0
    assert out.values[0, 2].item() == pytest.approx(dense[0, 2].item())
    assert out.error_after[0] < out.error_before[0]


def test_dead_layer_and_empty_rows_stay():
    H = torch.zeros(1, 3, 3, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    values = torch.ones(2, 3)
    out = refit_rows(H, torch.zeros(2, 3), torch.zeros(2), mask, values)
    assert out.values.tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_large_spread_of_supports_agrees_with_single_rows():
    rng = np.random.default_rng(3)
    _, _, args = problem(rng, rows=40, cols=60, n=200)
    for r in range(40):
        args[3][r] = torch.from_numpy(rng.permutation(60) < r + 1)
    together = refit_rows(*args).values
    H, target, energy, mask, values = args
    for r in range(0, 40, 7):
        one = slice(r, r + 1)
        alone = refit_rows(H, target[one], energy[one], mask[one], values[one]).values
        assert torch.allclose(together[one], alone, atol=1e-9)


def test_large_supports_satisfy_the_normal_equations():
    rng = np.random.default_rng(4)
    _, _, (H, target, energy, mask, values) = problem(rng, rows=4, cols=300, n=900, density=0.6)
    mask[3] = False
    mask[3, :7] = True
    out = refit_rows(H, target, energy, mask, values, damping=1e-6)
    ridge = 1e-6 * H[0].diagonal().mean()
    slope = out.values @ H[0] - target + ridge * (out.values - values)
    assert slope[mask].abs().max() < 1e-6 * target.abs().max()
    assert (out.values[~mask] == 0).all()


def test_fast_enough_for_a_layer():
    rng = np.random.default_rng(1)
    _, _, args = problem(rng, rows=512, cols=784, n=1000, density=0.1)
    start = time.process_time()
    out = refit_rows(*args)
    assert time.process_time() - start < 10.0  # about half a second; the rest is for noise
    assert out.error_after.sum() < out.error_before.sum()


def test_bad_arguments_are_refused():
    H = torch.eye(2, dtype=torch.float64)[None]
    row, energy, mask = torch.ones(1, 2), torch.ones(1), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(RefitError, match="values must have shape"):
        refit_rows(H, row, energy, mask, torch.ones(1, 3))
    with pytest.raises(RefitError, match="damping"):
        refit_rows(H, row, energy, mask, row, damping=-1.0)
    with pytest.raises(RefitError, match="finite"):
        refit_rows(H, row * float("nan"), energy, mask, row)
