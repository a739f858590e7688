"""DSnoT: prune and grow until each row's expected output is that of the dense row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .method import BaselineError, LayerBudget, LayerMethod, Scope, checked_weight
from .moments import LayerMoments
from .wanda import Wanda

__all__ = ["DSnoT"]

# of an input's second moment: a smaller variance is rounding
_CONSTANT = 1e-12


@dataclass(frozen=True)
class DSnoT:
    """Dynamic sparse no training.

    The expected error of a row is what its pruned weights would put out on the mean input,
    ``E = sum over pruned j of w_j mu_j``. A cycle takes into the row the pruned weight with the
    largest ``sign(E) w_i mu_i / var_i`` and prunes, among the kept weights whose loss lowers |E|
    (``sign(E) w_j mu_j < 0``), the one with the least Wanda score. A row ends at |E| <= tolerance,
    after ``cycles``, or without a weight to grow or prune; for N:M both are of one group of M.

    The paper leaves the mask of the last cycle. Cycles may pass through E = 0 to the other side; a
    row here keeps the mask with the least |E| that it went through.

    Only the mean output is looked at. Where so few weights are kept that outputs hardly vary any
    more, a mean that is right outweighs what tells samples apart, and accuracy falls below the
    start's although layer errors do too (docs/layer-baselines.md has numbers).

    Zhang, Zhao, Lin, Sun, Yao, Han, Tanner, Liu and Ji 2023, "Dynamic sparse no training:
    training-free fine-tuning for sparse LLMs" (ICLR 2024), arXiv:2310.08915.

    Attributes
    ----------
    start : gives the first mask; its row counts (pattern) stay
    cycles : at most for a row; 50 in the paper
    tolerance : in output units; 0.1 in the paper
    """

    start: LayerMethod = field(default_factory=Wanda)
    cycles: int = 50
    tolerance: float = 0.1

    name: ClassVar[str] = "dsnot"
    moves_weights: ClassVar[bool] = False
    paper_scope: ClassVar[Scope] = "row"
    reference: ClassVar[str] = "Zhang et al. 2023, arXiv:2310.08915"

    def __post_init__(self) -> None:
        if self.start.moves_weights:
            raise BaselineError(
                f"start must leave the weights as they are, {self.start.name!r} moves them"
            )
        if self.cycles < 0 or not 0.0 <= self.tolerance < float("inf"):
            raise BaselineError(
                f"cycles and tolerance must be >= 0, got {self.cycles!r} and {self.tolerance!r}"
            )

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        mask, _ = self.start.prune(moments, weight, budget)
        if mask.numel():
            mask = self._refine(moments, weight, mask, budget.pattern)
        return mask, torch.where(mask, weight, 0.0)

    def _refine(
        self,
        moments: LayerMoments,
        weight: Tensor,
        mask: Tensor,
        pattern: tuple[int, int] | None,
    ) -> Tensor:
        rows, cols = weight.shape
        m = cols if pattern is None else pattern[1]
        output = weight * moments.by_row(moments.means, rows)
        second = moments.H.diagonal(dim1=1, dim2=2)
        variance = torch.maximum(moments.variances(), _CONSTANT * second)
        # a dead input puts nothing out
        gain = torch.where(
            output != 0, output / moments.by_row(variance, rows).clamp(min=1e-300), 0.0
        )
        score = Wanda.scores(moments, weight)
        row = torch.arange(rows, device=weight.device)
        group = torch.arange(cols, device=weight.device) // m

        mask = mask.clone()
        error = torch.where(mask, 0.0, output).sum(1)
        best, least = mask.clone(), error.abs()
        active = least > self.tolerance
        for _ in range(self.cycles):
            sign = error.sign()[:, None]
            losers = mask & (sign * output < 0)
            served = losers.reshape(rows, -1, m).any(2).repeat_interleave(m, dim=1)
            winners = torch.where(~mask & served, sign * gain, -torch.inf)
            top, i = winners.max(1)
            active &= top > 0
            if not bool(active.any()):
                break
            near = losers & (group == group[i][:, None])
            j = torch.where(near, score, torch.inf).argmin(1)
            mask[row[active], i[active]] = True
            mask[row[active], j[active]] = False
            step = output[row, j] - output[row, i]
            error = torch.where(active, error + step, error)
            better = active & (error.abs() < least)
            best[better] = mask[better]
            least = torch.where(better, error.abs(), least)
            active &= error.abs() > self.tolerance
        return best
