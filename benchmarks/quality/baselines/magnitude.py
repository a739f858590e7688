"""Magnitude pruning: the largest weights stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .method import LayerBudget, Scope, checked_weight
from .moments import LayerMoments
from .selection import select

__all__ = ["Magnitude"]


@dataclass(frozen=True)
class Magnitude:
    """``|w|``, compared within the row or the layer, as the budget says.

    Han, Pool, Tran and Dally 2015, arXiv:1506.02626.
    """

    name: ClassVar[str] = "magnitude"
    moves_weights: ClassVar[bool] = False
    paper_scope: ClassVar[Scope] = "layer"
    reference: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626"

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        mask = select(weight.abs(), budget)
        return mask, torch.where(mask, weight, 0.0)
