"""ADMM for the support of weights that are re-fitted."""

import torch

from optiprune.admm import admm_support
from optiprune.engine.joint_search import within_budgets
from optiprune.refit import refit_rows


def problem(rows=24, cols=40, samples=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(cols, cols, generator=g, dtype=torch.float64) / cols**0.5
    x = torch.randn(samples, cols, generator=g, dtype=torch.float64) @ mix
    w = torch.randn(rows, cols, generator=g, dtype=torch.float64)
    return (x.T @ x / samples)[None], w


def error(H, w, mask):
    b = w @ H[0]
    energy = (b * w).sum(1)
    return float(refit_rows(H, b, energy, mask, torch.where(mask, w, 0.0)).error_after.sum())


def test_its_support_is_better_than_the_largest_weights():
    H, w = problem()
    first = within_budgets(w.abs() * H[0].diagonal().sqrt(), w.abs() > 0.7, False, None)
    found, _ = admm_support(H, w @ H[0], w, lambda s: within_budgets(s, first, False, None))
    assert int(found.sum()) == int(first.sum())
    assert error(H, w, found) < 0.8 * error(H, w, first)


def test_budgets_by_row_and_by_pattern_hold():
    H, w = problem()
    first = torch.zeros_like(w, dtype=torch.bool)
    for r in range(len(w)):
        first[r, : r % 40] = True
    found, _ = admm_support(H, w @ H[0], w, lambda s: within_budgets(s, first, True, None))
    assert torch.equal(found.sum(1), first.sum(1))
    pattern = torch.tensor([1, 1, 0, 0], dtype=torch.bool).repeat(24, 10)
    found, _ = admm_support(H, w @ H[0], w, lambda s: within_budgets(s, pattern, False, (2, 4)))
    assert (found.reshape(24, -1, 4).sum(2) == 2).all()


def test_dead_inputs_are_not_chosen_and_zero_layers_pass():
    H, w = problem()
    H[:, 3], H[:, :, 3] = 0.0, 0.0
    w[:, 3] = 50.0
    first = w.abs() > 1.0
    found, _ = admm_support(H, w @ H[0], w, lambda s: within_budgets(s, first, False, None))
    assert not found[:, 3].any()
    nothing, _ = admm_support(
        torch.zeros_like(H), torch.zeros_like(w), w, lambda s: within_budgets(s, first, False, None)
    )
    assert int(nothing.sum()) == int(first.sum())


def test_groups_of_rows_have_their_own_matrices():
    (a, w), (b, v) = problem(8, 20, seed=1), problem(8, 20, seed=2)
    H, both = torch.cat([a, b]), torch.cat([w, v])
    target = torch.cat([w @ a[0], v @ b[0]])
    first = torch.zeros_like(both, dtype=torch.bool)
    first[:, :10] = True
    found, _ = admm_support(H, target, both, lambda s: within_budgets(s, first, True, None))
    for rows, (h, x) in zip((slice(0, 8), slice(8, 16)), ((a, w), (b, v)), strict=True):
        alone, _ = admm_support(h, x @ h[0], x, lambda s: within_budgets(s, first[:8], True, None))
        # rho goes by the rows of both: nearly the same, not to the bit
        assert (found[rows] == alone).double().mean() > 0.9


def test_the_largest_scores_are_kept_and_of_equals_the_first():
    score = torch.tensor([[3.0, 1.0, 2.0], [2.0, 2.0, 0.0]])
    for k, want in enumerate(["000000", "100000", "101000", "101100", "101110", "111110", "1" * 6]):
        like = torch.zeros(6, dtype=torch.bool)
        like[:k] = True
        found = within_budgets(score, like.reshape(2, 3), False, None)
        assert "".join(str(int(b)) for b in found.flatten()) == want
    same = within_budgets(torch.zeros(2, 3), score > 1.5, False, None)
    assert same.flatten().tolist() == [True] * 4 + [False] * 2
