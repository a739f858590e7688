"""Best subset on the Fisher model of the loss: which weights stay, and their values, together.

Around weights v with mean gradient g and gradients G of N samples (N x P), the loss is modelled by

    q(w) = g'(w - v) + 1/2 (w - v)'A(w - v),   A = G'G / N + rho I,

to be lowered over w with a given number of entries (Singh and Alistarh 2020, "WoodFisher",
arXiv:2004.14340; with the choice of entries as one problem: Benbaki et al. 2023, "Fast as CHITA",
arXiv:2302.14623). A is P x P and never formed: with ``b = Av - g``, K = N rho I + G_S G_S' for a
support S, and ``r = b - G'K^-1 G_S b_S``, the identity of Woodbury gives

- the best values on S, ``w_S = r_S / rho``, and the slope outside, ``-r``;
- what losing j costs, ``rho w_j^2 / 2 (1 - h_j)``, and what taking j gains,
  ``r_j^2 / 2 rho (1 + h_j)``, all others re-fitted, with ``h_j = g_j'K^-1 g_j``;
- for a batch B, all others of S re-fitted, the Schur complement ``rho (I + G_B'K_R^-1 G_B)`` with
  the linear term ``b_B - G_B'K_R^-1 G_R b_R``, R = S without B: a best-subset problem of the
  batch's own size.

The candidates among which S is chosen are the columns given; weights that are no candidates are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from optiprune.problems import MIQP

__all__ = ["FisherBatch", "FisherSubset"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

# candidates whose products are formed at once
_PIECE = 1 << 14
# 1 - h_j below this is rounding: the data alone fix the weight
_FIXED = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class FisherBatch:
    """``index`` (n,) int64 ascending candidates, the problem over them, the support now.

    ``problem.energy(x)`` is the change of the model's minimum for the support x, all others
    re-fitted; ``problem.energy(x0) = 0``.
    """

    index: Indices
    problem: MIQP
    x0: npt.NDArray[np.int8]


class FisherSubset:
    """The model over c candidates, and a support among them that moves.

    Parameters
    ----------
    gradients : (N, c) float32, G; overwritten by nothing, held as it is
    linear : (c,) float64, b = Av - g
    ridge : rho > 0
    support : (c,) bool

    Attributes
    ----------
    support : (c,) bool, moved by `exchange`
    """

    def __init__(
        self, gradients: npt.NDArray[np.float32], linear: Floats, ridge: float, support: Bools
    ) -> None:
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge must be a number > 0, got {ridge!r}")
        self.G, self.b, self.ridge = gradients, linear, float(ridge)
        self.support = support.copy()
        n = len(gradients)
        self._M = np.zeros((n, n))
        self._u = np.zeros(n)
        on = np.flatnonzero(support)
        for part in _pieces(on):
            columns = gradients[:, part]
            self._M += columns @ columns.T
            self._u += columns.astype(np.float64) @ linear[part]
        self._h: Floats | None = None

    def _factor(self, M: Floats) -> tuple[Floats, bool]:
        n = len(M)
        found: tuple[Floats, bool] = cho_factor(
            M + n * self.ridge * np.eye(n), lower=True, overwrite_a=True, check_finite=False
        )
        return found

    def residual(self) -> Floats:
        """r, (c,): rho times the best values on the support, minus the slope outside it."""
        found: Floats = cho_solve(self._factor(self._M), self._u)
        out: Floats = self.b - self._columns_times(found)
        return out

    def _columns_times(self, x: Floats) -> Floats:
        """G'x, (c,) float64; the sums of float32 products."""
        out: Floats = (x.astype(np.float32) @ self.G).astype(np.float64)
        return out

    def values(self) -> Floats:
        """The best values, (c,), 0 outside the support."""
        return np.where(self.support, self.residual() / self.ridge, 0.0)

    def leverages(self) -> Floats:
        """h, (c,) float64, at the support at which it is first asked for.

        Exchanges of a few weights hardly move it: it ranks candidates, and the batch's problem is
        exact whatever it says.
        """
        if self._h is None:
            factor, _ = self._factor(self._M)
            self._h = np.empty(len(self.b))
            root = factor.astype(np.float32)
            for part in _pieces(np.arange(len(self.b))):
                t = solve_triangular(root, self.G[:, part], lower=True, check_finite=False)
                self._h[part] = np.einsum("ij,ij->j", t, t)
        return self._h

    def batch(self, size: int, among: Bools | None = None) -> FisherBatch | None:
        """The candidates cheapest to lose and those that gain most, half each.

        ``among`` (c,): candidates that share a budget; None: all do. Returns None where there is
        nothing to exchange.
        """
        r, h = self.residual(), self.leverages()
        open_ = np.ones_like(self.support) if among is None else among
        inside = np.flatnonzero(self.support & open_)
        outside = np.flatnonzero(~self.support & open_)
        if len(inside) == 0 or len(outside) == 0:
            return None
        lose = r[inside] ** 2 / np.maximum(1.0 - h[inside], _FIXED)
        gain = r[outside] ** 2 / (1.0 + h[outside])
        leave = inside[np.argsort(lose, kind="stable")[: size // 2]]
        enter = outside[np.argsort(-gain, kind="stable")[: size - len(leave)]]
        index = np.sort(np.concatenate([leave, enter]))
        x0 = self.support[index]
        GB = self.G[:, index].astype(np.float64)
        GL = GB[:, x0]
        u = self._u - GL @ self.b[index[x0]]
        solved = cho_solve(self._factor(self._M - GL @ GL.T), np.column_stack([u, GB]))
        H = self.ridge * np.eye(len(index)) + self.ridge * (GB.T @ solved[:, 1:])
        linear = self.b[index] - GB.T @ solved[:, 0]
        on = np.flatnonzero(x0)
        now = 0.5 * float(linear[on] @ np.linalg.solve(H[np.ix_(on, on)], linear[on]))
        problem = MIQP((H + H.T) / 2.0, linear, k=len(on), offset=now)
        return FisherBatch(index, problem, x0.astype(np.int8))

    def exchange(self, batch: FisherBatch, x: npt.ArrayLike) -> int:
        """Take over the batch's answer; how many weights changed side."""
        new = np.asarray(x, dtype=bool)
        old = self.support[batch.index]
        for moved, sign in ((batch.index[new & ~old], 1.0), (batch.index[old & ~new], -1.0)):
            columns = self.G[:, moved].astype(np.float64)
            self._M += sign * (columns @ columns.T)
            self._u += sign * (columns @ self.b[moved])
        self.support[batch.index] = new
        return int(np.count_nonzero(new != old))


def _pieces(index: Indices) -> list[Indices]:
    return np.array_split(index, max(1, -(-len(index) // _PIECE)))
