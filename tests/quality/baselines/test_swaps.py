"""1-swaps: exact changes, errors that only fall, an end that no single exchange improves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.baselines import (
    ALPS,
    BaselineError,
    LayerBudget,
    Magnitude,
    SparseSwaps,
    Wanda,
)
from benchmarks.quality.baselines.swaps import refine, refine_on_device


def errors(case, mask):
    return case.moments.gram.error(case.weight * mask, case.weight)


def best_swap(case, mask, r, m):
    """Least error of row r over all exchanges within m weights, by trying each."""
    least = float("inf")
    for u in mask[r].nonzero()[:, 0].tolist():
        for v in (~mask[r]).nonzero()[:, 0].tolist():
            if u // m == v // m:
                other = mask.clone()
                other[r, u], other[r, v] = False, True
                least = min(least, float(errors(case, other)[r]))
    return least


def test_by_hand(gram):
    # Inputs 0 and 1 are opposite: weights 3 and 3 on them cancel. Wanda keeps 0 and 1 (scores 3, 3,
    # 2.9, 2.8) with error 2.9^2 + 2.8^2; pruning both costs nothing. One exchange: keep 2 and one
    # of the twins, error 9 + 2.8^2 = 16.84 > 16.25: no single swap helps. At 2, 2 it does.
    H = torch.eye(4, dtype=torch.float64)
    H[0, 1] = H[1, 0] = -1.0
    budget = LayerBudget(0.5)
    start = torch.tensor([[3.0, 3.0, 2.9, 2.8]])
    mask, _ = SparseSwaps().prune(gram(H), start, budget)
    assert mask.tolist() == [[True, True, False, False]]
    # 0, 1 pruned at (2.2, 2.2, 2, 2): kept 0 1 has error 8; 0 2 has 2.2^2 + 4 = 8.84; at 2 = 1.9
    # from {0, 2} by magnitude on (2.2, 1.9, 2, 2): error 1.9^2 + 4 = 7.61; exchange 0 for 3:
    # d = (2.2, 1.9): 2.2^2 + 1.9^2 - 2 * 2.2 * 1.9 = 0.09
    weight = torch.tensor([[2.2, 1.9, 2.0, 2.0]])
    mask, values = SparseSwaps(start=Magnitude()).prune(gram(H), weight, budget)
    assert mask.tolist() == [[False, False, True, True]]
    assert values.tolist() == [[0.0, 0.0, 2.0, 2.0]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2]), st.sampled_from([12, 4]))
def test_each_swap_is_the_best_and_none_is_left_at_the_end(layer, seed, groups, m):
    case = layer(seed=seed, rows=2, cols=12, groups=groups)
    budget = LayerBudget(0.5) if m == 12 else LayerBudget.of_pattern(2, 4)
    mask, _ = Wanda().prune(case.moments, case.weight, budget)
    for _ in range(40):
        after, _ = SparseSwaps(max_swaps=1, start=Given(mask)).prune(
            case.moments, case.weight, budget
        )
        now, then = errors(case, mask), errors(case, after)
        for r in range(2):
            best = best_swap(case, mask, r, m)
            if torch.equal(mask[r], after[r]):
                assert best >= float(now[r]) * (1 - 1e-8)
            else:
                assert float(then[r]) == pytest.approx(best, rel=1e-6, abs=1e-10)
                assert float(then[r]) < float(now[r])
        if torch.equal(mask, after):
            break
        mask = after
    else:
        pytest.fail("40 swaps a row of 12 and no end")
    ended, _ = SparseSwaps().prune(case.moments, case.weight, budget)
    assert torch.equal(ended, mask)


class Given:
    """A start with a mask of its own."""

    name, moves_weights, paper_scope, reference = "given", False, "row", ""

    def __init__(self, mask):
        self.mask = mask

    def prune(self, moments, weight, budget):
        return self.mask, weight * self.mask


def test_errors_fall_with_the_number_of_swaps(layer):
    case = layer(rows=8, cols=64)
    budget = LayerBudget(0.4)
    last = errors(case, Wanda().prune(case.moments, case.weight, budget)[0])
    for most in (1, 2, 4, 8, 16, None):
        mask, _ = SparseSwaps(max_swaps=most).prune(case.moments, case.weight, budget)
        now = errors(case, mask)
        assert bool((now <= last * (1 + 1e-9)).all())
        assert now.sum() < last.sum() or most in (16, None)
        last = now


def test_halves_wandas_error(layer):
    """The paper: up to 60 % lower; the trained layers of test_trained_network lose more."""
    case = layer(rows=16, cols=64)
    budget = LayerBudget(0.5)
    wanda, _ = Wanda().prune(case.moments, case.weight, budget)
    mask, _ = SparseSwaps().prune(case.moments, case.weight, budget)
    assert errors(case, mask).sum() < 0.5 * errors(case, wanda).sum()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([16, 4]),
    st.sampled_from([None, 0, 1, 3]),
)
def test_device_path_equals_the_kernel(layer, seed, groups, m, most):
    case = layer(seed=seed, groups=groups)
    budget = LayerBudget(0.5) if m == 16 else LayerBudget.of_pattern(2, 4)
    mask, _ = Wanda().prune(case.moments, case.weight, budget)
    a = refine(case.moments.H, case.weight, mask, m, most)
    b = refine_on_device(case.moments.H, case.weight, mask, m, most)
    assert torch.equal(a, b)


def test_bad_settings_are_refused():
    with pytest.raises(BaselineError, match="'alps' moves them"):
        SparseSwaps(start=ALPS())
    with pytest.raises(BaselineError, match="max_swaps must be >= 0 or None, got -3"):
        SparseSwaps(max_swaps=-3)
