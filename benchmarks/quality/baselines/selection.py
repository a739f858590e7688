"""Keep the largest scores, exactly as many as the budget says."""

from __future__ import annotations

import torch
from torch import Tensor

from .method import LayerBudget

__all__ = ["keep_largest", "select"]


def keep_largest(scores: Tensor, k: int) -> Tensor:
    """The k largest of each row, bool; of equal ones the first.

    scores : (rows, n), no NaN; 0 <= k <= n. A threshold and then a count of what equals it: the
    same on every device, which a sort or a top-k of equal values need not be.
    """
    n = scores.shape[1]
    if k <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if k >= n:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = torch.kthvalue(scores, n - k + 1, dim=1, keepdim=True).values
    above = scores > threshold
    ties = scores == threshold
    missing = k - above.sum(1, keepdim=True)
    return above | (ties & (ties.cumsum(1) <= missing))


def select(scores: Tensor, budget: LayerBudget) -> Tensor:
    """The mask of the largest scores within the budget, (rows, cols) bool."""
    rows, cols = scores.shape
    if budget.pattern is not None:
        n, m = budget.pattern
        return keep_largest(scores.reshape(-1, m), n).reshape(rows, cols)
    if budget.scope == "row":
        return keep_largest(scores, round(budget.density * cols))
    return keep_largest(scores.reshape(1, -1), budget.kept(rows, cols)).reshape(rows, cols)
