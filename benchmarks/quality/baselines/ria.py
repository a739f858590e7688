"""RIA: a weight relative to its row and its column, times the activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .method import BaselineError, LayerBudget, Scope, checked_weight
from .moments import LayerMoments
from .selection import select

__all__ = ["RIA"]


@dataclass(frozen=True)
class RIA:
    """``(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) ||x_j||_2 ** power``.

    The sum over a column runs over the rows of its convolution group, which share the input. The
    paper's second part, a permutation of channels for N:M patterns, changes where a pattern lies
    and is not in here.

    Zhang, Bai, Lin, Zhao, Hou and Cannistraci 2024, "Plug-and-play: an efficient post-training
    pruning method for large language models" (ICLR), arXiv:2402.17946.

    Attributes
    ----------
    power : of the activation norm; 0.5 in the paper
    """

    power: float = 0.5

    name: ClassVar[str] = "ria"
    moves_weights: ClassVar[bool] = False
    paper_scope: ClassVar[Scope] = "layer"
    reference: ClassVar[str] = "Zhang et al. 2024, arXiv:2402.17946"

    def __post_init__(self) -> None:
        if not 0.0 <= self.power < float("inf"):
            raise BaselineError(f"power must be a number >= 0, got {self.power!r}")

    def scores(self, moments: LayerMoments, weight: Tensor) -> Tensor:
        """(rows, cols) float64, >= 0."""
        size = weight.abs().reshape(moments.groups, -1, moments.cols)
        relative = _share(size, size.sum(1, keepdim=True)) + _share(size, size.sum(2, keepdim=True))
        activation = moments.norms().pow(self.power)[:, None, :]
        return (relative * activation).reshape(weight.shape)

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        mask = select(self.scores(moments, weight), budget)
        return mask, torch.where(mask, weight, 0.0)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    # a row or column of zeros has no share to give
    return torch.where(whole > 0, part / whole, 0.0)
