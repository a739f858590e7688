"""ALPS: ADMM finds the support of a layer, conjugate gradients its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .method import BaselineError, LayerBudget, Scope, checked_weight
from .moments import LayerMoments
from .selection import select

__all__ = ["ALPS", "AdmmSupport", "admm", "conjugate_gradients", "normalised"]


@dataclass(frozen=True)
class ALPS:
    """``min ||X Ŵ - X W||^2 + lambda ||Ŵ - W||^2`` with at most k entries in W.

    Inputs are scaled so that H has a unit diagonal. ADMM with a copy D of W that has k entries,

        W = (H + rho I)^-1 (H Ŵ - V + rho D),  D = P_k(W + V / rho),  V += rho (W - D),

    on one eigendecomposition of H. Every third iteration compares the support of D with that of
    three iterations before: rho grows by 1.3 where their symmetric difference holds 0.1 k entries
    or more, 1.2 from 0.005 k, 1.1 from one; at none the support is final. Preconditioned conjugate
    gradients on the support, all rows at once, then find the weights (a step length for each row,
    since rows are independent).

    Meng, Behdin, Wang and Mazumder 2024, "ALPS: improved optimization for highly sparse one-shot
    pruning for large language models" (NeurIPS), arXiv:2406.07831.

    Attributes
    ----------
    damping : lambda in units of the mean diagonal of H
    rho : the first one, for a unit diagonal
    iterations : of ADMM at most
    cg_steps : conjugate-gradient iterations at most; 10 in the paper
    """

    damping: float = 0.01
    rho: float = 0.1
    iterations: int = 300
    cg_steps: int = 10

    name: ClassVar[str] = "alps"
    moves_weights: ClassVar[bool] = True
    paper_scope: ClassVar[Scope] = "layer"
    reference: ClassVar[str] = "Meng et al. 2024, arXiv:2406.07831"

    def __post_init__(self) -> None:
        if not 0.0 <= self.damping < float("inf"):
            raise BaselineError(f"damping must be a number >= 0, got {self.damping!r}")
        if not 0.0 < self.rho < float("inf"):
            raise BaselineError(f"rho must be a number > 0, got {self.rho!r}")
        if self.iterations < 1 or self.cg_steps < 0:
            raise BaselineError(
                f"iterations must be at least 1 and cg_steps at least 0, got {self.iterations} and "
                f"{self.cg_steps}"
            )

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        H, scale = normalised(moments.H, self.damping)
        by_row = moments.by_row(scale, weight.shape[0])
        dense = weight * by_row
        found = admm(H, dense, budget, self.rho, self.iterations)
        target = (dense.reshape(moments.groups, -1, moments.cols) @ H).reshape(dense.shape)
        values = conjugate_gradients(H, target, found.mask, found.values, self.cg_steps)
        return found.mask, values / by_row


@dataclass(frozen=True)
class AdmmSupport:
    """``mask`` (rows, cols) bool, ``values`` float64 of D on it, ``moved``: entries by which the
    last two supports compared differ, 0 once stationary."""

    mask: Tensor
    values: Tensor
    moved: int


def normalised(H: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """H with the ridge on it and its diagonal scaled to one, and the scale.

    Returns (groups, cols, cols) and (groups, cols) > 0: a weight of the scaled problem is the
    weight times the scale. A dead input has the ridge alone, or one where all inputs are dead or
    damping is 0.
    """
    diagonal = H.diagonal(dim1=1, dim2=2)
    damped = diagonal + damping * diagonal.mean(1, keepdim=True)
    scale = torch.where(damped > 0, damped, 1.0).sqrt()
    scaled = H / scale[:, :, None] / scale[:, None, :]
    scaled.diagonal(dim1=1, dim2=2).fill_(1.0)
    return scaled, scale


def admm(H: Tensor, dense: Tensor, budget: LayerBudget, rho: float, iterations: int) -> AdmmSupport:
    """The support that the iteration settles on.

    H : (groups, cols, cols) float64 of `normalised`; dense : (rows, cols) float64, scaled.
    """
    groups, cols = H.shape[0], H.shape[-1]
    e, Q = torch.linalg.eigh(H)
    # float32 from here: only the support is decided, conjugate gradients are in float64 again
    e, Q = e.clamp(min=0.0).float(), Q.float()
    grouped = dense.reshape(groups, -1, cols)
    b = (grouped @ H).float()
    d = grouped.float()
    v = torch.zeros_like(d)
    k = max(1, budget.kept(*dense.shape))
    before = torch.ones_like(dense, dtype=torch.bool)
    mask, moved = before, 0
    for step in range(1, iterations + 1):
        w = ((b - v + rho * d) @ Q / (e + rho)[:, None, :]) @ Q.transpose(1, 2)
        y = w + v / rho
        mask = select(y.abs().reshape(dense.shape), budget)
        d = torch.where(mask.reshape(y.shape), y, 0.0)
        v += rho * (w - d)
        if step % 3 == 0:
            moved = int((mask ^ before).sum())
            if moved == 0:
                break
            rho *= 1.3 if moved >= 0.1 * k else 1.2 if moved >= 0.005 * k else 1.1
            before = mask
    return AdmmSupport(mask, d.reshape(dense.shape).double(), moved)


def conjugate_gradients(
    H: Tensor, target: Tensor, mask: Tensor, start: Tensor, steps: int, tolerance: float = 1e-10
) -> Tensor:
    """Each row's ``H_SS w_S = b_S`` on its support S, (rows, cols) float64, zero off it.

    H : (groups, cols, cols) with a positive diagonal, which preconditions. A row ends when its
    residual is below ``tolerance`` times its target, all after ``steps``.
    """
    groups, cols = H.shape[0], H.shape[-1]
    shape = (groups, -1, cols)
    support = mask.reshape(shape).to(H.dtype)
    inverse = 1.0 / H.diagonal(dim1=1, dim2=2)[:, None, :]
    b = target.reshape(shape) * support
    x = start.reshape(shape) * support
    r = b - (x @ H) * support
    z = inverse * r
    p = z
    rz = (r * z).sum(-1, keepdim=True)
    enough = tolerance * b.norm(dim=-1, keepdim=True)
    for _ in range(steps):
        going = r.norm(dim=-1, keepdim=True) > enough
        if not bool(going.any()):
            break
        Hp = (p @ H) * support
        curvature = (p * Hp).sum(-1, keepdim=True)
        # a direction that H does not see ends its row
        length = torch.where(going & (curvature > 0), rz / curvature, 0.0)
        x = x + length * p
        r = r - length * Hp
        z = inverse * r
        rz, last = (r * z).sum(-1, keepdim=True), rz
        p = z + torch.where(last > 0, rz / last, 0.0) * p
    return x.reshape(target.shape)
