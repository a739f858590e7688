"""Many damped least squares with one matrix, each on a support of its own, by conjugate gradients.

Row i minimises ``w'Hw - 2 b_i'w + c_i + ridge_i ||w - v_i||^2`` over w that vanish off its support.
One product with H serves all rows, where a factorisation takes a matrix for each; with wide rows
and large supports that is several times faster (Meng et al. 2024, arXiv:2406.07831, refit so on a
support). Iterations are in float32 with a diagonal and a few directions as preconditioner;
residuals and solutions are float64 (iterative refinement: Higham, "Accuracy and stability of
numerical algorithms", 2002, chapter 12). What a step gains is known without a product, and what
the last steps gained tells how much is left (Strakos and Tichy 2002, "On error estimation in the
conjugate gradient method").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiprune.preconditioner import Pairs, Preconditioner, leading, pairs_of, precondition

__all__ = ["TOLERANCE", "solve_supports"]

# steps whose gain is looked at, and how little of the objective it may be when a row is left alone
_LAST = 4
TOLERANCE = 2e-6
# of the objective: by how much what the steps gained may miss what was gained in float64
_SETTLED = 1e-4
_ROUNDING = 1e-14  # of c
_CORRECTIONS = 6
_STEPS = 200
# rows that are done leave the products once so many of them are left
_PACKED = 0.75
# elements of the rows that go together on a processor: what a step touches stays in its caches
_CACHED = 1 << 19
_FEWEST = 128


def solve_supports(
    H: Tensor,
    b: Tensor,
    v: Tensor,
    c: Tensor,
    mask: Tensor,
    ridge: Tensor,
    start: Tensor,
    tolerance: float = TOLERANCE,
) -> tuple[Tensor, Tensor, Tensor]:
    """(solutions (rows, cols), zero off the supports; (rows,) bool, which of them are good; (rows,)
    float64, ``w'Hw - 2 b'w + c`` of these, NaN of the others).

    Parameters
    ----------
    H : (cols, cols) float64, positive semi-definite
    b, v, start : (rows, cols) float64; ``start`` is where the iteration begins
    c, ridge : (rows,) float64, >= 0
    mask : (rows, cols) bool

    A round of steps ends where the last four gained ``tolerance`` of the objective at most. A row
    is good once it ended so and its objective in float64 is, to a ten-thousandth, what the steps
    say; other rows go on from there.
    """
    # the cores of the rows then cost about as much as one step does
    rank = math.isqrt(2 * len(H))
    U = leading(H, rank) if len(b) >= rank else H.new_zeros((len(H), 0), dtype=torch.float32)
    few, pairs = H.float(), pairs_of(U)
    together = len(b) if H.device.type != "cpu" else max(_FEWEST, _CACHED // len(H))
    parts = zip(*(t.split(max(1, together)) for t in (b, v, c, mask, ridge, start)), strict=True)
    solved = [_solve_part(H, few, U, pairs, tolerance, part) for part in parts]
    x, good, error = (torch.cat(found) for found in zip(*solved, strict=True))
    return x, good, error


def _solve_part(
    H: Tensor, few: Tensor, U: Tensor, pairs: Pairs, tolerance: float, part: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """`solve_supports` of the rows of ``part``; ``few``: H in float32, ``U``: its leading
    directions, ``pairs``: of them."""
    b, v, c, mask, ridge, start = part
    on = mask.to(torch.float64)
    inverse = precondition(H.diagonal(), ridge, U, pairs, mask)
    damping, kept = ridge.float(), on.float()
    dead = (H.diagonal() == 0) & (ridge[:, None] > 0)
    x, v = torch.where(dead, v, start) * on, v * on
    good = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    error = torch.full_like(c, torch.nan)
    left = torch.arange(len(b), device=b.device)
    told: Tensor | None = None
    for _ in range(_CORRECTIONS):
        at = x[left]
        product, pull = at @ H, ridge[left, None] * (at - v[left])
        fitted = ((product - 2.0 * b[left]) * at).sum(1) + c[left]
        value = fitted + (pull * (at - v[left])).sum(1)
        open_ = torch.ones_like(left, dtype=torch.bool)
        if told is not None:
            # NaN, where a row did not end, is near nothing
            near = (value - told).abs() <= _SETTLED * value.clamp(min=0.0) + _ROUNDING * c[left]
            good[left], error[left[near]], open_ = near, fitted[near], ~near
            if not bool(open_.any()):
                break
        r = ((b[left] - product - pull) * on[left]).float()[open_]
        left, value = left[open_], value[open_]
        of_rows = (kept[left], damping[left], inverse.of(left), value)
        found, told, flat = _iterate(few, r, *of_rows, tolerance)
        x[left] += found
        left, told = left[~flat], told[~flat]
    return x, good, error


def _iterate(
    H: Tensor,
    r: Tensor,
    on: Tensor,
    ridge: Tensor,
    inverse: Preconditioner,
    value: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What to add to rows with residuals r and objectives ``value``, (rows, cols) float32; what
    their objectives are then, NaN where the steps were too few; and in which rows a direction was
    met along which the objective does not rise."""
    out = torch.zeros_like(r)
    told = torch.full_like(value, torch.nan)
    flat = torch.zeros_like(value, dtype=torch.bool)
    rows = torch.arange(len(r), device=r.device)
    x = torch.zeros_like(r)
    p = inverse(r)
    rz = (r * p).sum(1)
    recent = torch.full((len(r), _LAST), torch.inf, dtype=value.dtype, device=r.device)
    for step in range(_STEPS):
        q = (p @ H + ridge[:, None] * p) * on
        curvature = (p * q).sum(1)
        open_ = (recent.sum(1) > tolerance * value) & (rz > 0)
        moving = open_ & (curvature > 0)
        count = int(moving.sum())
        if count <= _PACKED * len(rows):
            out[rows], flat[rows] = x, open_ & ~moving
            told[rows] = torch.where(open_, torch.nan, value)
            if count == 0:
                break
            rows, x, r, p, q = rows[moving], x[moving], r[moving], p[moving], q[moving]
            on, ridge, inverse = on[moving], ridge[moving], inverse.of(moving)
            value, recent, rz = value[moving], recent[moving], rz[moving]
            curvature, moving = curvature[moving], moving[moving]
        length = torch.where(moving, rz / curvature, 0.0)
        gain = (length * rz).double()
        recent[:, step % _LAST] = torch.where(moving, gain, recent[:, step % _LAST])
        value = torch.where(moving, value - gain, value).clamp(min=0.0)
        x = x + length[:, None] * p
        r = r - length[:, None] * q
        z = inverse(r)
        before, rz = rz, (r * z).sum(1)
        p = z + torch.where(before > 0, rz / before, 0.0)[:, None] * p
    else:
        out[rows] = x
    return out, told, flat
