"""ALPS: the iteration against a literal one, its end, and the weights on the support."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.baselines import ALPS, BaselineError, LayerBudget, Magnitude
from benchmarks.quality.baselines.alps import admm, conjugate_gradients, normalised
from benchmarks.quality.baselines.selection import select

BUDGETS = [LayerBudget(0.3), LayerBudget(0.3, scope="layer"), LayerBudget.of_pattern(2, 4)]


def slow_admm(H, dense, budget, rho, iterations):
    """The paper's three lines with an explicit inverse, one group; supports every third step."""
    k = budget.kept(*dense.shape)
    eye = torch.eye(len(H))
    D, V = dense.clone(), torch.zeros_like(dense)
    before = torch.ones_like(dense, dtype=torch.bool)
    history = []
    for step in range(1, iterations + 1):
        W = (dense @ H - V + rho * D) @ torch.linalg.inv(H + rho * eye)
        mask = select((W + V / rho).abs(), budget)
        D = torch.where(mask, W + V / rho, 0.0)
        V = V + rho * (W - D)
        if step % 3 == 0:
            moved = int((mask != before).sum())
            history.append((moved, rho))
            if moved == 0:
                return mask, history
            if moved >= 0.1 * k:
                rho *= 1.3
            elif moved >= 0.005 * k:
                rho *= 1.2
            else:
                rho *= 1.1
            before = mask
    return mask, history


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_literal_iteration(layer, budget, seed):
    case = layer(seed=seed, rows=8, cols=24)
    H, scale = normalised(case.moments.H, 0.01)
    dense = case.weight * scale
    expected, history = slow_admm(H[0], dense, budget, 0.1, 300)
    found = admm(H, dense, budget, 0.1, 300)
    assert torch.equal(found.mask, expected)
    assert found.moved == 0
    assert history[-1][0] == 0
    assert history[-1][1] > 0.1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BUDGETS), st.sampled_from([1, 2]))
def test_the_support_ends_stationary(layer, seed, budget, groups):
    case = layer(seed=seed, rows=8, cols=24, groups=groups)
    H, scale = normalised(case.moments.H, 0.01)
    found = admm(H, case.weight * scale.repeat_interleave(8 // groups, 0), budget, 0.1, 300)
    assert found.moved == 0


def test_all_growth_factors_of_the_paper_occur(layer):
    case = layer(rows=32, cols=64)
    H, scale = normalised(case.moments.H, 0.01)
    budget = LayerBudget(0.5, scope="layer")
    mask, history = slow_admm(H[0], case.weight * scale, budget, 0.1, 300)
    rhos = [rho for _, rho in history]
    factors = {round(b / a, 6) for a, b in pairwise(rhos)}
    assert factors == {1.3, 1.2, 1.1}
    found = admm(H, case.weight * scale, budget, 0.1, 300)
    # float32 against float64 over some 50 iterations: a few near ties at most
    assert int((found.mask != mask).sum()) <= 4


def test_unit_diagonal(layer, gram):
    case = layer(dead=(3,))
    H, scale = normalised(case.moments.H, 0.01)
    assert torch.equal(H.diagonal(dim1=1, dim2=2), torch.ones(1, 16, dtype=torch.float64))
    ridge = 0.01 * case.moments.H[0].diagonal().mean()
    assert torch.allclose(scale[0] ** 2, case.moments.H[0].diagonal() + ridge)
    dead, ones = normalised(torch.zeros(1, 3, 3, dtype=torch.float64), 0.01)
    assert torch.equal(dead[0], torch.eye(3, dtype=torch.float64))
    assert bool((ones == 1).all())


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_weights_satisfy_the_normal_equations_on_the_support(layer, budget):
    case = layer(rows=8, cols=24, groups=2)
    mask, values = ALPS(cg_steps=500).prune(case.moments, case.weight, budget)
    ridge = 0.01 * case.moments.H.diagonal(dim1=1, dim2=2).mean(1)
    for r in range(8):
        H = case.moments.H[r // 4] + ridge[r // 4] * torch.eye(24)
        residual = H @ (values[r] - case.weight[r])
        assert float(residual[mask[r]].abs().max()) < 1e-8
        assert float(residual.abs().max()) > 1e-3  # off the support it does not vanish


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_conjugate_gradients_solve_each_row(layer, seed, share):
    case = layer(seed=seed, groups=2)
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(6, 16, generator=g) < share
    H, _ = normalised(case.moments.H, 0.01)
    out = conjugate_gradients(H, case.weight, mask, torch.zeros(6, 16).double(), 400)
    for r in range(6):
        s = torch.nonzero(mask[r])[:, 0]
        expected = torch.linalg.solve(H[r // 3][s][:, s], case.weight[r, s])
        assert torch.allclose(out[r, s], expected, atol=1e-6)
        assert not out[r][~mask[r]].any()


def test_every_step_of_conjugate_gradients_lowers_the_error(layer):
    case = layer(rows=8, cols=24)
    H, scale = normalised(case.moments.H, 0.01)
    dense = case.weight * scale
    found = admm(H, dense, LayerBudget(0.3), 0.1, 300)
    errors = []
    for steps in range(8):
        w = conjugate_gradients(H, dense @ H[0], found.mask, found.values, steps)
        errors.append((((w - dense) @ H[0]) * (w - dense)).sum(1))
    for a, b in pairwise(errors):
        assert bool((b <= a * (1 + 1e-9)).all())
    assert float(errors[-1].sum()) < float(errors[0].sum())


def test_uncorrelated_inputs_make_it_magnitude(layer, gram):
    """With H = I the problem separates: the k largest weights, unchanged, are the solution.

    A pruned entry's w + v / rho tends to w / rho, so the first rho of 0.1 is sure to see weights
    that are ten times smaller.
    """
    weight = layer().weight
    order = weight.abs().flatten().argsort(descending=True)
    weight.view(-1)[order[:24]] = weight.view(-1)[order[:24]].sign() * torch.arange(60.0, 36, -1)
    moments, budget = gram(torch.eye(16)), LayerBudget(0.25, scope="layer")
    mask, values = ALPS().prune(moments, weight, budget)
    assert torch.equal(mask, Magnitude().prune(moments, weight, budget)[0])
    assert torch.allclose(values, weight * mask, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"damping": -1.0}, {"rho": 0.0}, {"iterations": 0}, {"cg_steps": -1}],
)
def test_bad_settings_are_refused(arguments):
    with pytest.raises(BaselineError, match=next(iter(arguments))):
        ALPS(**arguments)
