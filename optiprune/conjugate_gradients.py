"""Many damped least squares with one matrix, each on a support of its own, by conjugate gradients.

Row i minimises ``w'Hw - 2 b_i'w + c_i + ridge_i ||w - v_i||^2`` over w that vanish off its support.
One product with H serves all rows, where a factorisation takes a matrix for each; with wide rows
and large supports that is several times faster (Meng et al. 2024, arXiv:2406.07831, refit so on a
support). Iterations are in float32 with the diagonal as preconditioner; residuals and solutions are
float64 (iterative refinement: Higham, "Accuracy and stability of numerical algorithms", 2002,
chapter 12). What a step gains is known without a product, and what the last steps gained tells how
much is left (Strakos and Tichy 2002, "On error estimation in the conjugate gradient method").
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["solve_supports"]

# of the objective: what the last steps may have gained when a row is left alone
_GAIN = 1e-5
_LAST = 4
# of the objective: what a correction may have gained when it was the last one
_SETTLED = 1e-4
_ROUNDING = 1e-14  # of c
_CORRECTIONS = 6
_STEPS = 200


def solve_supports(
    H: Tensor, b: Tensor, v: Tensor, c: Tensor, mask: Tensor, ridge: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """(solutions (rows, cols), zero off the supports; (rows,) bool, which of them are good).

    Parameters
    ----------
    H : (cols, cols) float64, positive semi-definite
    b, v, start : (rows, cols) float64; ``start`` is where the iteration begins
    c, ridge : (rows,) float64, >= 0
    mask : (rows, cols) bool

    A row is good once a round of corrections gains less than a ten-thousandth of its objective; the
    first round stops where the last steps gained a hundred-thousandth.
    """
    on = mask.to(torch.float64)
    diagonal = H.diagonal() + ridge[:, None]
    inverse = (torch.where(diagonal > 0, 1.0 / diagonal, 0.0) * on).float()
    few, damping, kept = H.float(), ridge.float(), on.float()
    dead = (H.diagonal() == 0) & (ridge[:, None] > 0)
    x, v = torch.where(dead, v, start) * on, v * on
    good = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    broken = good.clone()
    before: Tensor | None = None
    for _ in range(_CORRECTIONS):
        product = x @ H
        pull = ridge[:, None] * (x - v)
        value = ((product - 2.0 * b) * x).sum(1) + c + (pull * (x - v)).sum(1)
        if before is not None:
            finite = torch.isfinite(value)
            good = finite & (before - value <= _SETTLED * value.clamp(min=0.0) + _ROUNDING * c)
            if bool(good.all()):
                break
        r = ((b - product - pull) * on).float()
        found, flat = _iterate(few, r, kept, damping, inverse, value)
        x, broken = x + found, broken | flat
        before = value
    return x, good & ~broken


def _iterate(
    H: Tensor, r: Tensor, on: Tensor, ridge: Tensor, inverse: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """What to add to rows with residuals r and objectives ``value``, (rows, cols) float32; and in
    which rows a direction was met along which the objective does not rise."""
    x = torch.zeros_like(r)
    z = r * inverse
    p = z.clone()
    rz = (r * z).sum(1)
    flat = torch.zeros_like(value, dtype=torch.bool)
    recent = [torch.full_like(value, torch.inf)] * _LAST
    for _ in range(_STEPS):
        q = (p @ H + ridge[:, None] * p) * on
        curvature = (p * q).sum(1)
        moving = (sum(recent) > _GAIN * value) & (rz > 0)
        flat = flat | (moving & (curvature <= 0))
        moving = moving & ~flat
        if not bool(moving.any()):
            break
        step = torch.where(moving, rz / curvature, 0.0)
        recent = [*recent[1:], (step * rz).double()]
        value = (value - recent[-1]).clamp(min=0.0)
        x = x + step[:, None] * p
        r = r - step[:, None] * q
        z = r * inverse
        before, rz = rz, (r * z).sum(1)
        p = z + torch.where(before > 0, rz / before, 0.0)[:, None] * p
    return x, flat
