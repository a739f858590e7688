"""Wanda: weights times the norms of their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .method import LayerBudget, Scope, checked_weight
from .moments import LayerMoments
from .selection import select

__all__ = ["Wanda"]


@dataclass(frozen=True)
class Wanda:
    """``|w_ij| ||x_j||_2``; the paper compares within an output row.

    Sun, Liu, Bair and Kolter 2023, "A simple and effective pruning approach for large language
    models", arXiv:2306.11695.
    """

    name: ClassVar[str] = "wanda"
    moves_weights: ClassVar[bool] = False
    paper_scope: ClassVar[Scope] = "row"
    reference: ClassVar[str] = "Sun et al. 2023, arXiv:2306.11695"

    @staticmethod
    def scores(moments: LayerMoments, weight: Tensor) -> Tensor:
        """(rows, cols) float64, >= 0."""
        return weight.abs() * moments.by_row(moments.norms(), weight.shape[0])

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        mask = select(self.scores(moments, weight), budget)
        return mask, torch.where(mask, weight, 0.0)
