"""Least squares on the kept weights of each row, so that a pruned layer still does its job.

Row by row, with the support S fixed, the reconstruction error is ``w'Hw - 2 b'w + c`` (b = Cŵ, see
`optiprune.curvature.gram`). The refit minimises, over w that vanish off S,

    w'Hw - 2 b'w + lambda ||w - v||^2,      (H_SS + lambda I) w_S = b_S + lambda v_S,

where v is the row as it was. Damping thus pulls to the weights that training chose and not to
zero: a weight whose input is dead on the calibration data (a zero row of H) keeps its value, and no
lambda can make the error larger than it was at v, since w = v is one of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from optiprune.conjugate_gradients import TOLERANCE, solve_supports

__all__ = ["RefitError", "RefitResult", "refit_rows"]

# elements of one batch of gathered matrices: 256 MiB in float64
_BATCH = 1 << 25
_ONE_BY_ONE = 128
# supports of so many weights, and of so large a share of a row, are solved by conjugate gradients
_MANY = 192
_SHARE = 0.25
_ATTEMPTS = 10
_FIRST_DAMPING = 1e-10
_ROUNDING = 1e-10  # of the row's output energy


class RefitError(ValueError):
    """The arguments of a refit do not fit together; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class RefitResult:
    """Re-fitted rows.

    Attributes
    ----------
    values : (rows, cols) float64, zero off the support
    error_before, error_after : (rows,) float64; never larger after than before
    damping : (rows,) float64, lambda over the mean diagonal of H, as used
    failed : (rows,) bool, rows that no damping could solve: they are as they were
    raised : (rows,) bool, rows that needed more damping than was asked for
    """

    values: Tensor
    error_before: Tensor
    error_after: Tensor
    damping: Tensor
    failed: Tensor
    raised: Tensor


def refit_rows(
    H: Tensor,
    target: Tensor,
    energy: Tensor,
    mask: Tensor,
    values: Tensor,
    damping: float = 1e-4,
    near: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> RefitResult:
    """Re-fit each row on its support.

    Parameters
    ----------
    H : (groups, cols, cols) float64, Gram matrices; row r uses group ``r // (rows // groups)``
    target : (rows, cols), b = Cŵ (`LayerGram.cross` of the dense rows)
    energy : (rows,), c = ŵ'Dŵ (`LayerGram.target_energy`): only makes the errors reported absolute
    mask : (rows, cols) bool, the supports; an empty one gives a row of zeros
    values : (rows, cols), the rows as they are (zero off the mask is implied)
    damping : lambda in units of the mean diagonal of the row's H, >= 0
        Raised tenfold, row by row, while the factorisation fails or the error would rise.
    near : (rows, cols), guesses of the outcome, which only save time; by default ``values``

    tolerance : of conjugate gradients: share of a row's error that its last four steps may gain

    Large supports are solved by conjugate gradients, by default mostly to 1e-6 and at worst to 1e-3
    of what is left of the error and the pull; with damping 0 by factorisations alone.

    Raises
    ------
    RefitError
        On shapes that do not fit, damping that is negative or not finite, or values that are not.
    """
    groups, cols = H.shape[0], H.shape[-1]
    rows = mask.shape[0]
    if H.ndim != 3 or H.shape[1] != cols:
        raise RefitError(f"H must have shape (groups, cols, cols), got {tuple(H.shape)}")
    for name, t in (("target", target), ("mask", mask), ("values", values)):
        if tuple(t.shape) != (rows, cols):
            raise RefitError(f"{name} must have shape ({rows}, {cols}), got {tuple(t.shape)}")
    if tuple(energy.shape) != (rows,) or rows % groups:
        raise RefitError(f"{rows} rows in {groups} groups, energies of {tuple(energy.shape)}")
    if not 0 <= damping < float("inf"):
        raise RefitError(f"damping must be a number >= 0, got {damping!r}")
    H = H.to(torch.float64)
    mask = mask.to(torch.bool)
    v = torch.where(mask, values.to(torch.float64), 0.0)
    b = target.to(torch.float64)
    if not bool(torch.isfinite(H).all() and torch.isfinite(b).all() and torch.isfinite(v).all()):
        raise RefitError("H, target and values must be finite")
    group = torch.arange(rows, device=H.device) // max(1, rows // groups)
    near = v if near is None else near.to(torch.float64)
    unit = H.diagonal(dim1=1, dim2=2).mean(1)[group]

    before = _error(H, group, b, energy, v)
    out, after = v.clone(), before.clone()
    used = torch.full((rows,), float(damping), dtype=torch.float64, device=H.device)
    sizes = mask.sum(1)
    pending = (sizes > 0) & (unit > 0)
    raised = torch.zeros_like(pending)
    for attempt in range(_ATTEMPTS):
        if attempt:
            raised |= pending
            used[pending] = (10.0 * used[pending]).clamp(min=_FIRST_DAMPING)
        for index in _batches(pending, sizes, cols):
            ridge = (used * unit)[index]
            kept = mask[index]
            if int(kept.sum(1).max()) < _large(cols):
                w, ok = _solve(H, group[index], b[index], v[index], kept, ridge)
                error = _error(H, group[index], b[index], energy[index], w)
            else:
                w, ok, error = _solve_by_gradients(
                    H,
                    group[index],
                    b[index],
                    v[index],
                    energy[index],
                    kept,
                    ridge,
                    near[index],
                    tolerance,
                )
            # a row that was best already may come back worse by rounding: solved, but not taken
            ok = ok & (error <= before[index] + _ROUNDING * energy[index].abs())
            pending[index[ok]] = False
            better = ok & (error < before[index])
            taken = index[better]
            out[taken], after[taken] = w[better], error[better]
        if not bool(pending.any()):
            break
    return RefitResult(out, before, after, used, pending, raised & ~pending)


def _large(cols: int) -> float:
    """Supports of so many of ``cols`` weights are solved by conjugate gradients."""
    return max(_MANY, _SHARE * cols)


def _error(H: Tensor, group: Tensor, b: Tensor, energy: Tensor, w: Tensor) -> Tensor:
    product = torch.empty_like(w)
    for g in range(H.shape[0]):
        rows = group == g
        product[rows] = w[rows] @ H[g]
    return (((product - 2.0 * b) * w).sum(1) + energy.to(torch.float64)).clamp(min=0.0)


def _batches(pending: Tensor, sizes: Tensor, cols: int) -> Iterator[Tensor]:
    """Indices of pending rows, of like support size, few enough to fit in memory at once."""
    large = pending & (sizes >= _large(cols))
    if bool(large.any()):
        yield from torch.split(torch.nonzero(large)[:, 0], max(1, _BATCH // cols // 2))
    index = torch.nonzero(pending & ~large)[:, 0]
    index = index[torch.argsort(sizes[index], stable=True)]
    at = 0
    ordered = sizes[index].tolist()
    while at < len(ordered):
        # padding to the largest support costs its cube: let it grow by an eighth at most
        most = max(ordered[at] + 8, ordered[at] * 9 // 8)
        end = at + 1
        while end < len(ordered) and ordered[end] <= most:
            if (end + 1 - at) * ordered[end] ** 2 > _BATCH:
                break
            end += 1
        yield index[at:end]
        at = end


def _solve(
    H: Tensor, group: Tensor, b: Tensor, v: Tensor, mask: Tensor, ridge: Tensor
) -> tuple[Tensor, Tensor]:
    """The re-fitted rows of a batch, zero off the support, and whether each could be solved."""
    rhs = b + ridge[:, None] * v
    if H.device.type == "cpu" and int(mask.sum(1).max()) >= _ONE_BY_ONE:
        # torch's batched routines are unblocked on the CPU, four times slower at m = 400
        w, ok = _solve_one_by_one(H, group, rhs, mask, ridge)
    else:
        w, ok = _solve_together(H, group, rhs, mask, ridge)
    # a failed factor may leave NaN: such a row is dropped
    ok = ok & torch.isfinite(w).all(1)
    return torch.where(ok[:, None], w, 0.0), ok


def _solve_by_gradients(
    H: Tensor,
    group: Tensor,
    b: Tensor,
    v: Tensor,
    energy: Tensor,
    mask: Tensor,
    ridge: Tensor,
    near: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_solve`, and the errors, by conjugate gradients; rows that they do not solve are
    factorised."""
    w, ok = torch.zeros_like(b), torch.zeros(len(b), dtype=torch.bool, device=b.device)
    error = torch.zeros_like(energy, dtype=torch.float64)
    # without damping a factorisation is what says that there is no solution
    damped = ridge > 0
    for g in torch.unique(group).tolist():
        at = torch.nonzero(damped & (group == g))[:, 0]
        if len(at):
            w[at], ok[at], error[at] = solve_supports(
                H[g], b[at], v[at], energy[at], mask[at], ridge[at], near[at], tolerance
            )
    left = torch.nonzero(~ok)[:, 0]
    if len(left):
        w[left], ok[left] = _solve(H, group[left], b[left], v[left], mask[left], ridge[left])
        error[left] = _error(H, group[left], b[left], energy[left], w[left])
    return w, ok, error.clamp(min=0.0)


def _solve_one_by_one(
    H: Tensor, group: Tensor, rhs: Tensor, mask: Tensor, ridge: Tensor
) -> tuple[Tensor, Tensor]:
    w = torch.zeros_like(rhs)
    ok = torch.zeros(rhs.shape[0], dtype=torch.bool, device=rhs.device)
    for i, g in enumerate(group.tolist()):
        s = torch.nonzero(mask[i])[:, 0]
        A = H[g][s[:, None], s]
        A.diagonal().add_(ridge[i])
        L, info = torch.linalg.cholesky_ex(A)
        w[i, s] = torch.cholesky_solve(rhs[i, s, None], L)[:, 0]
        ok[i] = info == 0
    return w, ok


def _solve_together(
    H: Tensor, group: Tensor, rhs: Tensor, mask: Tensor, ridge: Tensor
) -> tuple[Tensor, Tensor]:
    """Supports are padded to a common size with rows of the identity."""
    m = int(mask.sum(1).max())
    # the support first, in order; what pads a short support is any other column
    support = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, :m]
    real = torch.gather(mask, 1, support)
    A = H[group[:, None, None], support[:, :, None], support[:, None, :]]
    A.masked_fill_(~(real[:, :, None] & real[:, None, :]), 0.0)
    A.diagonal(dim1=1, dim2=2).add_(torch.where(real, ridge[:, None], 1.0))
    L, info = torch.linalg.cholesky_ex(A)
    right = torch.where(real, torch.gather(rhs, 1, support), 0.0)
    x = torch.cholesky_solve(right[:, :, None], L)[:, :, 0]
    w = torch.zeros_like(rhs)
    w.scatter_(1, support, torch.where(real, x, 0.0))
    return w, info == 0
