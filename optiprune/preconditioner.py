"""Diagonal plus low rank: a matrix restricted to many supports, approximately inverted.

``H ~ U U' + D``: U holds the leading directions, found by a Nystrom sketch with one step of
subspace iteration, D is the diagonal of what they leave. On a support S and with a ridge the
inverse is, by the formula of Woodbury,

    D_S^-1 - D_S^-1 U_S (I + U_S' D_S^-1 U_S)^-1 U_S' D_S^-1.

Inputs of trained layers have a few directions that are tens of times as large as the rest; without
them conjugate gradients take a third to a half of the steps. After Frangella, Tropp and Udell,
"Randomized Nystrom preconditioning" (SIAM J. Matrix Anal. Appl. 44, 2023), with a diagonal in place
of the identity, and supports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Pairs", "Preconditioner", "leading", "pairs_of", "precondition"]

# of the diagonal: what is left of it counts as so much at least, so that float32 resolves the rest
_FLOOR = 1e-2
# of the largest eigenvalue of the sketch: what is below is rounding
_RANK = 1e-6
# pairs of directions at once
_PAIRS = 2048

Pairs = Sequence[tuple[Tensor, Tensor, Tensor]]
"""(first, second, products (cols, count) float32) of pairs of directions."""


@dataclass(frozen=True, slots=True, eq=False)
class Preconditioner:
    """Of some rows.

    Attributes
    ----------
    inverse : (rows, cols) float32, D^-1, zero off the supports
    U : (cols, rank) float32
    core : (rows, rank, rank) float32, (I + U_S' D_S^-1 U_S)^-1
    """

    inverse: Tensor
    U: Tensor
    core: Tensor

    def __call__(self, r: Tensor) -> Tensor:
        """(rows, cols) float32 of that shape and type."""
        out = r * self.inverse
        if self.U.shape[1]:
            along = torch.bmm(self.core, (out @ self.U)[:, :, None])[:, :, 0]
            out = out - (along @ self.U.T) * self.inverse
        return out

    def of(self, rows: Tensor) -> Preconditioner:
        """Of these rows alone; indices or a mask."""
        return Preconditioner(self.inverse[rows], self.U, self.core[rows])


def leading(H: Tensor, rank: int) -> Tensor:
    """U (cols, at most ``rank``) float32 with U U' <= H, its leading directions.

    ``H``: (cols, cols) float64, positive semi-definite. The sketch begins at a fixed matrix: the
    same H gives the same U.
    """
    scale = H.diagonal().clamp(min=0.0).sqrt()
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
    few = (H * inverse * inverse[:, None]).float()
    draw = torch.Generator().manual_seed(0)
    Q = torch.randn(len(H), rank, generator=draw).to(H.device)
    for _ in range(2):
        Q = torch.linalg.qr(few @ Q)[0]
    Y = (few @ Q).double()
    values, vectors = torch.linalg.eigh(Q.double().T @ Y)
    real = values > _RANK * values[-1:].clamp(min=0.0)
    U = Y @ (vectors[:, real] / values[real].sqrt())
    return (U * scale[:, None]).float()


def pairs_of(U: Tensor) -> Pairs:
    """Products of every two columns of U, each pair once: for `precondition` of many rows in turn.

    They take as much memory as half of the elements of (cols, rank, rank) float32.
    """
    pairs = torch.triu_indices(U.shape[1], U.shape[1], device=U.device)
    return [(i, j, U[:, i] * U[:, j]) for i, j in pairs.split(_PAIRS, dim=1)]


def precondition(
    diagonal: Tensor, ridge: Tensor, U: Tensor, pairs: Pairs, mask: Tensor
) -> Preconditioner:
    """Of the rows of ``mask``.

    Parameters
    ----------
    diagonal : (cols,) of H
    ridge : (rows,), >= 0, that is added to it
    U, pairs : (cols, rank) float32, as of `leading`, and `pairs_of` it; of rank 0 the diagonal is
        all
    mask : (rows, cols) bool, the supports
    """
    left = torch.maximum(diagonal - U.double().square().sum(1), _FLOOR * diagonal)
    left = left + ridge[:, None]
    inverse = torch.where(mask & (left > 0), 1.0 / left, 0.0).float()
    rank = U.shape[1]
    core = U.new_zeros((len(mask), rank, rank))
    if rank:
        for i, j, product in pairs:
            core[:, i, j] = core[:, j, i] = inverse @ product
        core.diagonal(dim1=1, dim2=2).add_(1.0)
        factor, info = torch.linalg.cholesky_ex(core)
        core = torch.cholesky_inverse(factor)
        # what float32 cannot factorise is left to the diagonal
        core[info != 0] = 0.0
    return Preconditioner(inverse, U, core)
