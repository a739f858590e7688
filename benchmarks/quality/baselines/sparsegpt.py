"""SparseGPT: one sweep over the columns that lets later weights make up for pruned ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from .method import BaselineError, LayerBudget, Scope, checked_weight
from .moments import LayerMoments
from .selection import keep_largest

__all__ = ["SparseGPT", "inverse_factor", "sweep"]

Choose: TypeAlias = Callable[[Tensor, int], Tensor]
"""Scores of consecutive columns (rows, width), their first column -> which of them to keep."""


@dataclass(frozen=True)
class SparseGPT:
    """Optimal Brain Surgeon column by column.

    Column j of every row is decided in order; if it is pruned, the columns behind it move by the
    OBS update on the inverse of their own Gram matrix,

        w_F -= w_j / [H_F^-1]_jj [H_F^-1]_(j, F),    F = {j, j + 1, ...},

    all of which stand in the Cholesky factor U of H^-1 (H_F^-1 = U_FF' U_FF). The mask of a block
    of columns is chosen when the sweep reaches it, by ``w^2 / [H_F^-1]_jj`` on the weights as they
    are then; for N:M one group of M at a time. Updates of columns behind the block are made once a
    block.

    With scope "layer" a block shares its budget between all rows, as in the paper; with "row" every
    row has its own.

    Frantar and Alistarh 2023, "SparseGPT: massive language models can be accurately pruned in
    one-shot", arXiv:2301.00774.

    Attributes
    ----------
    block : columns of which a mask is chosen at once, and of a lazy update (rounded up to whole
        groups of M)
    damping : added to the diagonal, in units of its mean
    """

    block: int = 128
    damping: float = 0.01

    name: ClassVar[str] = "sparsegpt"
    moves_weights: ClassVar[bool] = True
    paper_scope: ClassVar[Scope] = "layer"
    reference: ClassVar[str] = "Frantar & Alistarh 2023, arXiv:2301.00774"

    def __post_init__(self) -> None:
        if self.block < 1:
            raise BaselineError(f"block must be at least 1, got {self.block!r}")
        if not 0.0 <= self.damping < float("inf"):
            raise BaselineError(f"damping must be a number >= 0, got {self.damping!r}")

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        rows = weight.shape[0]
        block = width = min(self.block, moments.cols)
        if budget.pattern is not None:
            n, width = budget.pattern
            block = -(-self.block // width) * width

            def choose(scores: Tensor, start: int) -> Tensor:
                return keep_largest(scores, n)

        elif budget.scope == "row":

            def choose(scores: Tensor, start: int) -> Tensor:
                end = start + scores.shape[1]
                return keep_largest(scores, round(budget.density * end) - kept(start))

            def kept(end: int) -> int:
                return round(budget.density * end)

        else:

            def choose(scores: Tensor, start: int) -> Tensor:
                end = start + scores.shape[1]
                k = round(budget.density * rows * end) - round(budget.density * rows * start)
                return keep_largest(scores.reshape(1, -1), k).reshape(scores.shape)

        factor = inverse_factor(moments.H, self.damping)
        mask, values, _ = sweep(factor, weight, choose, block=block, width=width)
        return mask, values


def inverse_factor(H: Tensor, damping: float) -> Tensor:
    """Upper triangular U with ``U'U = (H + lambda I)^-1``, (groups, cols, cols) float64.

    lambda is ``damping`` times the mean diagonal, ten times as much (from 1e-10 on) while the
    factorisation fails; the identity where a group's inputs are all zero.
    """
    unit = H.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    base = torch.where((unit > 0)[:, None, None], H, eye)
    ridge = torch.where(unit > 0, damping * unit, 0.0)
    for _ in range(12):
        L, info = torch.linalg.cholesky_ex(base + ridge[:, None, None] * eye)
        if not bool(info.any()):
            U, bad = torch.linalg.cholesky_ex(torch.cholesky_inverse(L), upper=True)
            info = info | bad
        if not bool(info.any()):
            return U
        ridge = torch.where(info > 0, torch.maximum(10.0 * ridge, 1e-10 * unit), ridge)
    raise BaselineError("the Gram matrix could not be factorised with any damping up to its mean")


def sweep(
    factor: Tensor, weight: Tensor, choose: Choose, *, block: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over the columns.

    Parameters
    ----------
    factor : `inverse_factor`
    weight : (rows, cols) float64; row r uses group ``r // (rows // groups)``
    choose : asked for the next ``width`` columns when the sweep reaches them; ``width`` divides
        ``block`` unless the block is the last

    Returns
    -------
    mask, values (rows, cols), and the damped error of each row (rows,): the sum over its pruned
    columns of ``w_j^2 / [H_F^-1]_jj``
    """
    groups, cols = factor.shape[0], factor.shape[-1]
    w = weight.clone().reshape(groups, -1, cols)
    mask = torch.ones_like(w, dtype=torch.bool)
    total = torch.zeros_like(w[..., 0])
    diagonal = factor.diagonal(dim1=1, dim2=2)
    for start in range(0, cols, block):
        end = min(start + block, cols)
        steps = torch.zeros_like(w[..., start:end])
        for j in range(start, end):
            if (j - start) % width == 0:
                stop = min(j + width, end)
                scores = (w[..., j:stop] / diagonal[:, None, j:stop]).square()
                chosen = choose(scores.reshape(-1, stop - j), j)
                mask[..., j:stop] = chosen.reshape(scores.shape)
            pruned = ~mask[..., j]
            step = torch.where(pruned, w[..., j], 0.0) / diagonal[:, None, j]
            w[..., j:end] -= step[..., None] * factor[:, None, j, j:end]
            w[..., j].masked_fill_(pruned, 0.0)
            steps[..., j - start] = step
            total += step.square()
        w[..., end:] -= steps @ factor[:, start:end, end:]
    shape = weight.shape
    return mask.reshape(shape), w.reshape(shape), total.reshape(-1)
