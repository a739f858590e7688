"""SparseGPT: the OBS update, lazy blocks, adaptive masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.baselines import BaselineError, LayerBudget, SparseGPT, Wanda
from benchmarks.quality.baselines.sparsegpt import inverse_factor, sweep


def fixed(mask, cols):
    """A ``choose`` that answers with a given mask."""
    return lambda scores, start: mask[:, start : start + scores.shape[1]]


def swept(moments, weight, mask, block=128, damping=0.01):
    factor = inverse_factor(moments.H, damping)
    cols = weight.shape[1]
    width = min(block, cols)
    out, values, error = sweep(factor, weight, fixed(mask, cols), block=width, width=width)
    assert torch.equal(out, mask)
    return values, error


def damped(H, damping):
    return H + damping * H.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(H.shape[-1])


def slow_sweep(H, row, kept):
    """One row, one column at a time, by the inverse of what is left of H."""
    w = row.clone()
    for j in range(len(w)):
        if not kept[j]:
            inverse = torch.linalg.inv(H[j:, j:])
            w[j:] -= w[j] / inverse[0, 0] * inverse[0]
            w[j] = 0.0
    return w


def test_one_pruned_column_is_the_obs_update(layer):
    """Column 0 has all others behind it: the sweep is Optimal Brain Surgeon's exact update."""
    case = layer()
    mask = torch.ones_like(case.weight, dtype=torch.bool)
    mask[:, 0] = False
    values, error = swept(case.moments, case.weight, mask)
    inverse = torch.linalg.inv(damped(case.moments.H, 0.01)[0])
    expected = case.weight - case.weight[:, :1] / inverse[0, 0] * inverse[0]
    assert torch.allclose(values, expected, atol=1e-10)
    assert torch.allclose(error, case.weight[:, 0] ** 2 / inverse[0, 0], rtol=1e-9)


def test_the_last_column_has_nobody_behind_it(layer):
    case = layer()
    mask = torch.ones_like(case.weight, dtype=torch.bool)
    mask[:, -1] = False
    values, error = swept(case.moments, case.weight, mask)
    assert torch.equal(values, case.weight * mask)
    # of one variable alone: w^2 H_jj
    diagonal = damped(case.moments.H, 0.01)[0, -1, -1]
    assert torch.allclose(error, case.weight[:, -1] ** 2 * diagonal, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2]), st.integers(1, 12))
def test_equals_the_column_by_column_sweep(layer, seed, groups, block):
    case = layer(seed=seed, rows=4, cols=10, groups=groups)
    mask = torch.rand(4, 10, generator=torch.Generator().manual_seed(seed)) < 0.4
    values, error = swept(case.moments, case.weight, mask, block)
    H = damped(case.moments.H, 0.01)
    for r in range(4):
        expected = slow_sweep(H[r * groups // 4], case.weight[r], mask[r])
        assert torch.allclose(values[r], expected, atol=1e-8)
        # what the steps say that they cost is what they cost
        d = case.weight[r] - values[r]
        assert float(d @ H[r * groups // 4] @ d) == pytest.approx(float(error[r]), rel=1e-7)


def test_error_is_below_wandas_with_wandas_mask(layer):
    """As published. No law for each layer: a column may hand over to one that is pruned later."""
    moved, alone = [], []
    for seed in range(20):
        case = layer(seed=seed, rows=8, cols=32)
        mask, values = Wanda().prune(case.moments, case.weight, LayerBudget(0.5))
        error = case.moments.gram.error
        alone.append(float(error(values, case.weight).sum()))
        moved.append(float(error(swept(case.moments, case.weight, mask)[0], case.weight).sum()))
    assert sum(moved) < 0.9 * sum(alone)
    assert sum(a < b for a, b in zip(moved, alone, strict=True)) >= 15


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 1.0), st.integers(1, 20), st.sampled_from(["row", "layer"]))
def test_blocks_share_the_budget_exactly(layer, density, block, scope):
    case = layer(rows=5, cols=17)
    budget = LayerBudget(density, scope=scope)
    mask, _ = SparseGPT(block=block).prune(case.moments, case.weight, budget)
    assert int(mask.sum()) == budget.kept(5, 17)
    if scope == "row":
        assert bool((mask.sum(1) == round(density * 17)).all())
    else:
        end = min(block, 17)
        assert int(mask[:, :end].sum()) == round(density * 5 * end)


def test_n_of_m_is_chosen_on_the_weights_as_they_are_then(gram):
    # inputs 0 and 2 are nearly the same. Pruning 0 of the first pair moves its 1.0 to column 2,
    # which then beats 1.1 in column 3; a mask chosen on the dense weights would keep column 3.
    H = torch.eye(4, dtype=torch.float64)
    H[0, 2] = H[2, 0] = 0.999
    weight = torch.tensor([[1.0, 2.0, 1.0, 1.1]], dtype=torch.float64)
    mask, values = SparseGPT(damping=0.0).prune(gram(H), weight, LayerBudget.of_pattern(1, 2))
    assert mask.tolist() == [[False, True, True, False]]
    assert values[0, 2].item() == pytest.approx(1.999)


def test_one_mask_a_block_is_chosen_when_the_sweep_reaches_it(gram):
    H = torch.eye(4, dtype=torch.float64)
    H[0, 2] = H[2, 0] = 0.999
    weight = torch.tensor([[1.0, 2.0, 1.0, 1.1]], dtype=torch.float64)
    budget = LayerBudget(0.5)
    late, _ = SparseGPT(block=2, damping=0.0).prune(gram(H), weight, budget)
    assert late.tolist() == [[False, True, True, False]]
    # in one block: scores w^2 / [H_F^-1]_jj, 1 * 0.002 for column 0 (its twin makes up for it)
    whole, _ = SparseGPT(block=4, damping=0.0).prune(gram(H), weight, budget)
    assert whole.tolist() == [[False, True, False, True]]


def test_a_singular_matrix_without_damping_gets_some(gram):
    U = inverse_factor(torch.ones(1, 3, 3, dtype=torch.float64), 0.0)
    assert bool(torch.isfinite(U).all())
    inverse = (U.transpose(1, 2) @ U)[0]
    ridge = torch.linalg.inv(inverse) - torch.ones(3, 3)
    assert 0 < float(ridge.diagonal().mean()) < 1e-4


@pytest.mark.parametrize("arguments", [{"block": 0}, {"damping": -0.1}, {"damping": float("inf")}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(BaselineError, match=next(iter(arguments))):
        SparseGPT(**arguments)
