"""Products with chosen columns of A, read once and in place: float32 columns, float64 sums."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

__all__ = ["combine", "descend", "gram", "slopes"]

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]

# columns whose product is formed at once: 32 MiB at 500 samples
_PIECE = 1 << 14


def combine(columns: Tensor, index: Tensor, coefficients: Tensor) -> Tensor:
    """``sum_i coefficients_i columns[index_i]``, (n,) float64."""
    out = np.zeros(columns.shape[1])
    _combine(columns.numpy(), index.numpy(), coefficients.numpy(), out)
    return torch.from_numpy(out)


def slopes(columns: Tensor, index: Tensor, residual: Tensor) -> Tensor:
    """``columns[index] @ residual``, (len(index),) float64."""
    out = np.empty(index.numel())
    _slopes(columns.numpy(), index.numpy(), residual.numpy(), out)
    return torch.from_numpy(out)


def gram(columns: Tensor, index: Tensor) -> Tensor:
    """``A_S A_S'``, (n, n) float64; products of a piece in float32, sums of pieces in float64."""
    n = columns.shape[1]
    total = np.zeros((n, n))
    for part in index.split(_PIECE):
        total += ssyrk(1.0, columns[part].numpy().T, lower=1)
    lower = torch.from_numpy(total).tril()
    return lower + lower.tril(-1).T


def descend(
    columns: Tensor,
    center: Tensor,
    linear: Tensor,
    ridge: float,
    support: Tensor,
    w: Tensor,
    residual: Tensor,
    sweeps: int,
) -> None:
    """Cyclic coordinate descent over ``support``, in place in w and residual."""
    _descend(
        columns.numpy(),
        center.numpy(),
        linear.numpy(),
        ridge,
        support.numpy(),
        w.numpy(),
        residual.numpy(),
        sweeps,
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[misc]
def _combine(columns: Floats, index: Indices, coefficients: Floats, out: Floats) -> None:
    for at in range(index.size):
        c = coefficients[at]
        if c != 0.0:
            row = columns[index[at]]
            for m in range(out.size):
                out[m] += c * row[m]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[misc]
def _slopes(columns: Floats, index: Indices, residual: Floats, out: Floats) -> None:
    for at in range(index.size):
        row = columns[index[at]]
        total = 0.0
        for m in range(residual.size):
            total += row[m] * residual[m]
        out[at] = total


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[misc]
def _descend(
    columns: Floats,
    center: Floats,
    linear: Floats,
    ridge: float,
    support: Indices,
    w: Floats,
    residual: Floats,
    sweeps: int,
) -> None:
    n = residual.size
    for _ in range(sweeps):
        for i in support:
            row = columns[i]
            slope = 0.0
            size = 0.0
            for m in range(n):
                slope += row[m] * residual[m]
                size += row[m] * row[m]
            slope = slope / n + linear[i] + ridge * (w[i] - center[i])
            step = -slope / (size / n + ridge)
            w[i] += step
            for m in range(n):
                residual[m] += step * row[m]
