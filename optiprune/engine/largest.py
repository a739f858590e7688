"""The k largest of many scores, without a sort; among equals at the threshold the first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["largest", "largest_on_device"]


def largest(score: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.bool_]:
    """Which (n,) are the k largest."""
    n = len(score)
    if not 0 < k < n:
        return np.full(n, k > 0)
    threshold = np.partition(score, n - k)[n - k]
    chosen = score > threshold
    equal = np.flatnonzero(score == threshold)
    chosen[equal[: k - int(chosen.sum())]] = True
    return chosen


def largest_on_device(score: Tensor, k: int) -> Tensor:
    """`largest` of a tensor, where it is."""
    if score.device.type == "cpu":  # ten times faster than torch's topk there
        return torch.from_numpy(largest(score.numpy(), k))
    if not 0 < k < len(score):
        return torch.full_like(score, k > 0, dtype=torch.bool)
    threshold = score.topk(k, sorted=False).values.min()
    chosen = score > threshold
    equal = torch.nonzero(score == threshold)[:, 0]
    chosen[equal[: k - int(chosen.sum())]] = True
    return chosen
