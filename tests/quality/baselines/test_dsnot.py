"""DSnoT: a cycle by hand, expected errors that fall, row counts that stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.baselines import (
    BaselineError,
    DSnoT,
    LayerBudget,
    LayerMoments,
    Magnitude,
    SparseGPT,
    Wanda,
)
from optiprune.curvature.gram import LayerGram


def independent(means, variances):
    """Inputs of those means and variances that do not vary together."""
    mu, var = torch.tensor([means]).double(), torch.tensor([variances]).double()
    H = mu[:, :, None] * mu[:, None, :] + torch.diag_embed(var)
    return LayerMoments(LayerGram(H, H, H, 1), mu)


def expected_error(case, mask):
    """|mean of the pruned weights' output| by row, from the inputs themselves."""
    rows = case.weight.shape[0]
    pruned = torch.where(mask, 0.0, case.weight).reshape(case.X.shape[0], -1, case.X.shape[2])
    return (case.X @ pruned.transpose(1, 2)).mean(1).reshape(rows).abs()


def test_a_cycle_by_hand():
    # Magnitude keeps columns 0 and 1. Pruned: w mu = 1.5, 1, 1.2, so E = 3.7. Grown: the largest of
    # 1.5/3, 1/1, 1.2/4 is column 3. Columns whose loss lowers |E|: 1 alone (w mu = -0.5 x 4 = -2).
    # E = 3.7 - 1 - 2 = 0.7, still above 0.1. Second cycle: pruned 1, 2, 4 give -2, 1.5, 1.2; grown
    # column 2 (1.5/3); column 0 and 3 raise E when pruned: nothing to prune, the row ends.
    moments = independent([1.0, -0.5, 1.0, 1.0, 1.0], [1.0, 1.0, 3.0, 1.0, 4.0])
    weight = torch.tensor([[5.0, 4.0, 1.5, 1.0, 1.2]])
    mask, values = DSnoT(start=Magnitude()).prune(moments, weight, LayerBudget(0.4))
    assert mask.tolist() == [[True, False, False, True, False]]
    assert values.tolist() == [[5.0, 0.0, 0.0, 1.0, 0.0]]


def test_the_least_wanda_score_is_pruned():
    # Magnitude keeps 0, 1, 3; E = -1 from column 2, which is grown (E = 0). Losing 0 or 3 raises
    # E from -1: w mu = 5 and 0.8; column 3 scores 2 sqrt(1.16), column 0 scores 5 sqrt(2).
    moments = independent([1.0, -1.0, -1.0, 0.4], [1.0, 1.0, 9.0, 1.0])
    weight = torch.tensor([[5.0, 3.0, 1.0, 2.0]])
    mask, _ = DSnoT(start=Magnitude(), cycles=1).prune(moments, weight, LayerBudget(0.75))
    assert mask.tolist() == [[True, True, True, False]]


def test_a_cycle_to_a_larger_error_is_not_kept():
    # E = 2; column 3 is grown (0), and of 1 and 2 the second scores less: E = -2.9
    moments = independent([1.0, -1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    weight = torch.tensor([[5.0, 3.0, 2.9, 2.0]])
    mask, _ = DSnoT(start=Magnitude(), cycles=1).prune(moments, weight, LayerBudget(0.75))
    assert mask.tolist() == [[True, True, True, False]]


def test_the_variance_decides_what_grows():
    weight = torch.tensor([[9.0, 5.0, 2.0, 1.5]])
    for variances, grown in (([1.0, 1.0, 1.0, 1.0], 2), ([1.0, 1.0, 10.0, 1.0], 3)):
        moments = independent([1.0, -0.2, 1.0, 1.0], variances)
        mask, _ = DSnoT(start=Magnitude(), cycles=1).prune(moments, weight, LayerBudget(0.5))
        assert mask.nonzero()[:, 1].tolist() == [0, grown]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([LayerBudget(0.3), LayerBudget(0.5, scope="layer"), LayerBudget(0.5, (2, 4))]),
)
def test_expected_error_falls_and_counts_stay(layer, seed, groups, budget):
    case = layer(seed=seed, groups=groups)
    start, _ = Wanda().prune(case.moments, case.weight, budget)
    mask, _ = DSnoT().prune(case.moments, case.weight, budget)
    assert torch.equal(mask.sum(1), start.sum(1))
    if budget.pattern:
        assert bool((mask.reshape(-1, 4).sum(1) == 2).all())
    before, after = expected_error(case, start), expected_error(case, mask)
    assert bool((after <= before + 1e-9).all())
    changed = (mask != start).any(1)
    assert bool((after[changed] < before[changed]).all())
    assert not bool(changed[before <= 0.1].any())


def test_reduces_the_expected_error_of_a_wide_layer(layer):
    """What the paper is for: most of the expected error of Wanda's mask goes."""
    case = layer(rows=64, cols=128)
    start, _ = Wanda().prune(case.moments, case.weight, LayerBudget(0.3))
    mask, _ = DSnoT().prune(case.moments, case.weight, LayerBudget(0.3))
    assert expected_error(case, mask).sum() < 0.2 * expected_error(case, start).sum()


def test_no_cycles_is_the_start(layer):
    case = layer()
    expected, _ = Magnitude().prune(case.moments, case.weight, LayerBudget(0.5))
    mask, _ = DSnoT(start=Magnitude(), cycles=0).prune(case.moments, case.weight, LayerBudget(0.5))
    assert torch.equal(mask, expected)


def test_centred_inputs_leave_the_start(gram):
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    mask, _ = DSnoT().prune(gram(torch.eye(4)), weight, LayerBudget(0.5))
    assert mask.tolist() == [[False, False, True, True]]


def test_a_constant_input_is_grown_first():
    # no variance: what it adds is the same for every input
    moments = independent([1.0, -0.2, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0])
    weight = torch.tensor([[9.0, 5.0, 2.0, 1.5]])
    mask, _ = DSnoT(start=Magnitude(), cycles=1).prune(moments, weight, LayerBudget(0.5))
    assert mask.nonzero()[:, 1].tolist() == [0, 3]


def test_bad_settings_are_refused():
    with pytest.raises(BaselineError, match="'sparsegpt' moves them"):
        DSnoT(start=SparseGPT())
    with pytest.raises(BaselineError, match="got -1"):
        DSnoT(cycles=-1)
    with pytest.raises(BaselineError, match="tolerance"):
        DSnoT(tolerance=float("nan"))
