"""The quadratic whose best k-subset CHITA looks for, from per-sample gradients alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .chita_kernels import combine, descend, gram, slopes

__all__ = ["Kernel", "Point", "SubsetQuadratic"]

_REFINEMENTS = 3
_SETTLED = 1e-9


@dataclass(slots=True, eq=False)
class Point:
    """Weights with at most k non-zeros, and what is kept up to date with them.

    Attributes
    ----------
    w : (p,) float64, weights
    support : (k,) int64, sorted positions that may be non-zero
    residual : (n,) float64, A (w - center) + shift
    value : float, the quadratic at w
    """

    w: Tensor
    support: Tensor
    residual: Tensor
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class SubsetQuadratic:
    """``Q(w) = |A d + s|^2 / 2n + c'd + ridge |d|^2 / 2 + constant`` with ``d = w - center``.

    With A the gradients of n samples, c the mean gradient and no shift, Q is the predicted change
    of the loss; up to a constant it is CHITA's ``(|y - Xw|^2 + n ridge |w - center|^2) / 2n`` with
    X = A and y = A center - e (Benbaki et al. 2023, arXiv 2302.14623).

    Attributes
    ----------
    columns : (p, n) float32 (or 64), contiguous on the CPU, A'
    center, linear : (p,) float64, w-bar and c
    shift : (n,) float64, s
    ridge : > 0
    constant : what the weights outside an active set contribute
    """

    columns: Tensor
    center: Tensor
    linear: Tensor
    shift: Tensor
    ridge: float
    constant: float = 0.0

    @property
    def n(self) -> int:
        return int(self.columns.shape[1])

    @property
    def p(self) -> int:
        return int(self.columns.shape[0])

    def value(self, w: Tensor, residual: Tensor) -> float:
        """Q; ``residual`` is that of w."""
        d = w - self.center
        curve = float(residual @ residual) / (2 * self.n)
        return curve + float(self.linear @ d) + 0.5 * self.ridge * float(d @ d) + self.constant

    def gradient(self, point: Point, index: Tensor | None = None) -> Tensor:
        """Gradient of Q, (p,) or at the positions ``index``."""
        if index is None:
            slope = slopes(self.columns, torch.arange(self.p), point.residual) / self.n
            return slope + self.linear + self.ridge * (point.w - self.center)
        slope = slopes(self.columns, index, point.residual) / self.n
        return slope + self.linear[index] + self.ridge * (point.w - self.center)[index]

    def image(self, index: Tensor, step: Tensor) -> Tensor:
        """``A step`` for a step of the weights ``index``, (n,)."""
        return combine(self.columns, index, step)

    def at(self, w: Tensor, support: Tensor) -> Point:
        """The point w, which vanishes off ``support``."""
        residual = self.image(torch.arange(self.p), w - self.center) + self.shift
        return Point(w, support, residual, self.value(w, residual))

    def moved(self, point: Point, w: Tensor, support: Tensor) -> Point:
        """As `at`, from the weights that differ from those of ``point``."""
        changed = torch.nonzero(w != point.w)[:, 0]
        residual = point.residual + self.image(changed, (w - point.w)[changed])
        return Point(w, support, residual, self.value(w, residual))

    def on(self, active: Tensor) -> SubsetQuadratic:
        """The same over the weights ``active`` (positions) alone; all others are zero."""
        rest = torch.ones(self.p, dtype=torch.bool)
        rest[active] = False
        gone = torch.nonzero(rest)[:, 0]
        d = -self.center[gone]
        constant = float(self.linear[gone] @ d) + 0.5 * self.ridge * float(d @ d)
        return SubsetQuadratic(
            self.columns[active],
            self.center[active],
            self.linear[active],
            self.image(gone, d) + self.shift,
            self.ridge,
            self.constant + constant,
        )

    def descended(self, point: Point, sweeps: int) -> Point:
        """After cyclic coordinate descent over the support: each weight to its best in turn."""
        w, residual = point.w.clone(), point.residual.clone()
        descend(
            self.columns,
            self.center,
            self.linear,
            self.ridge,
            point.support,
            w,
            residual,
            sweeps,
        )
        value = self.value(w, residual)
        return Point(w, point.support, residual, value) if value <= point.value else point

    def solved(self, point: Point, kernel: Kernel) -> Point:
        """The minimum over the support (back-solve), from n x n systems by Woodbury's identity.

        ``(A_S'A_S / n + ridge I)^-1 = (I - A_S' (n ridge I + A_S A_S')^-1 A_S) / ridge``. Iterative
        refinement makes up for rounding; a step that does not lower Q is not taken.
        """
        support = point.support
        if support.numel() == 0:
            return point
        factor = kernel.factor(self, support)
        for _ in range(_REFINEMENTS):
            slope = self.gradient(point, support)
            inner = self.image(support, slope)[:, None]
            pulled = torch.cholesky_solve(inner, factor)[:, 0]
            step = (slopes(self.columns, support, pulled) - slope) / self.ridge
            w = point.w.clone()
            w[support] += step
            residual = point.residual + self.image(support, step)
            value = self.value(w, residual)
            if not value < point.value:
                break
            settled = point.value - value <= _SETTLED * abs(value)
            point = Point(w, support, residual, value)
            if settled:
                break
        return point


class Kernel:
    """``A_S A_S'`` of a support, float64, brought up to date by what has changed in it."""

    def __init__(self) -> None:
        self._support: Tensor | None = None
        self._product: Tensor | None = None

    def factor(self, quadratic: SubsetQuadratic, support: Tensor) -> Tensor:
        """(n, n) float64 Cholesky factor of ``n ridge I + A_S A_S'``."""
        now = torch.zeros(quadratic.p, dtype=torch.bool)
        now[support] = True
        old, product = self._support, self._product
        if old is None or product is None or 2 * int((now ^ old).sum()) > support.numel():
            product = gram(quadratic.columns, support)
        else:
            product = product + gram(quadratic.columns, torch.nonzero(now & ~old)[:, 0])
            product -= gram(quadratic.columns, torch.nonzero(old & ~now)[:, 0])
        self._support, self._product = now, product
        system = product.clone()
        # what rounding in float32 products may take from the diagonal
        floor = 1e-6 * float(product.diagonal().mean())
        system.diagonal().add_(max(quadratic.n * quadratic.ridge, floor))
        return torch.linalg.cholesky(system)
