"""Which units a layer can do without, if what is left is fitted again: removal and exchange.

A layer with dense weights W reads inputs with the Gram matrix G. Without the columns of some units
the best weights B on the columns S that are left minimise ``tr (B - W)' (G + lambda I) (B - W)``.
With P the inverse of G + lambda I on S, removing a unit with columns u costs
``tr B_u' (P_uu)^-1 B_u`` (the step of Optimal Brain Surgeon for a block; Meng et al. 2024, OSSCAR,
arXiv 2403.12983, for units), and adding one back gains ``tr R' (Schur complement)^-1 R`` with R its
rows of ``G (W - B)``. Both leave P and B exact by updates of the unit's rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.linalg

__all__ = ["ColumnSubset", "System"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class System:
    """One layer, or one group of a convolution, that reads units.

    Parameters
    ----------
    G : (cols, cols) float64, Gram matrix of its inputs, mean over positions
    W : (cols, rows) float64, dense weights, transposed
    columns : for every unit its columns, none where the layer does not read it
    importance : what a squared error of its output counts
    damping : lambda over the mean diagonal of G
    """

    G: FloatArray
    W: FloatArray
    columns: Sequence[IntArray]
    importance: float
    damping: float = 1e-4
    P: FloatArray = field(init=False)
    B: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        G = np.array(self.G, dtype=np.float64)
        mean = float(np.mean(np.diag(G))) if len(G) else 0.0
        # dead inputs have no curvature at all: the ridge alone keeps them where they are
        G[np.diag_indices_from(G)] += self.damping * mean if mean > 0 else 1.0
        self.G = G
        factor = scipy.linalg.cho_factor(G, lower=True)
        self.P = scipy.linalg.cho_solve(factor, np.eye(len(G)))
        self.B = np.array(self.W, dtype=np.float64)

    def removal_cost(self, unit: int) -> float:
        """Rise of the error, without ``importance``."""
        u = self.columns[unit]
        if not len(u):
            return 0.0
        b = self.B[u]
        if len(u) == 1:
            return float((b @ b.T)[0, 0] / self.P[u[0], u[0]])
        return float(np.sum(b * np.linalg.solve(self.P[np.ix_(u, u)], b)))

    def removal_costs(self, units: IntArray) -> FloatArray:
        lengths = {len(self.columns[i]) for i in units.tolist()}
        if lengths == {1}:  # neurons: all at once
            at = np.array([self.columns[i][0] for i in units.tolist()])
            costs: FloatArray = (self.B[at] ** 2).sum(1) / self.P[at, at]
            return costs
        if len(lengths) == 1:
            at = np.stack([self.columns[i] for i in units.tolist()])
            blocks = self.P[at[:, :, None], at[:, None, :]]
            b = self.B[at]
            return np.asarray((b * np.linalg.solve(blocks, b)).sum((1, 2)))
        return np.array([self.removal_cost(i) for i in units.tolist()])

    def remove(self, unit: int) -> None:
        u = self.columns[unit]
        if not len(u):
            return
        step = np.linalg.solve(self.P[np.ix_(u, u)], np.concatenate([self.P[u], self.B[u]], 1))
        across = self.P[:, u].copy()
        n = len(self.P)
        self.P -= across @ step[:, :n]
        self.B -= across @ step[:, n:]
        self.P[u] = 0.0
        self.P[:, u] = 0.0
        self.B[u] = 0.0

    def addition_gain(self, unit: int) -> float:
        u = self.columns[unit]
        if not len(u):
            return 0.0
        _, schur, r = self._outside(u)
        return float(np.sum(r * np.linalg.solve(schur, r)))

    def addition_gains(self, units: IntArray) -> FloatArray:
        """`addition_gain` of many units that are outside."""
        if {len(self.columns[i]) for i in units.tolist()} != {1}:
            return np.array([self.addition_gain(i) for i in units.tolist()])
        at = np.array([self.columns[i][0] for i in units.tolist()])
        through = self.P @ self.G[:, at]
        schur = self.G[at, at] - np.einsum("ij,ij->j", self.G[:, at], through)
        r = self.G[at] @ (self.W - self.B)
        gains: FloatArray = (r**2).sum(1) / schur
        return gains

    def add(self, unit: int) -> None:
        u = self.columns[unit]
        if not len(u):
            return
        through, schur, r = self._outside(u)  # through = P G_Su, zero off the support
        inverse = np.linalg.inv(schur)
        inverse = 0.5 * (inverse + inverse.T)
        values = inverse @ r
        self.B -= through @ values
        self.B[u] = values
        self.P += through @ inverse @ through.T
        self.P[:, u] = -through @ inverse
        self.P[u] = self.P[:, u].T
        self.P[np.ix_(u, u)] = inverse

    def _outside(self, u: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        through = self.P @ self.G[:, u]
        schur = self.G[np.ix_(u, u)] - self.G[u] @ through
        r = self.G[u] @ (self.W - self.B)
        return through, schur, r

    def error(self) -> float:
        """``tr (B - W)' G (B - W)`` with the ridge, without ``importance``."""
        d = self.B - self.W
        return float(np.sum(d * (self.G @ d)))


class ColumnSubset:
    """Units of one group, in all layers that read them.

    Attributes
    ----------
    kept : (units,) bool
    """

    def __init__(self, systems: Sequence[System], units: int) -> None:
        self.systems = systems
        self.kept = np.ones(units, dtype=bool)

    def error(self) -> float:
        return sum(s.importance * s.error() for s in self.systems)

    def removal_costs(self, units: IntArray) -> FloatArray:
        out = np.zeros(len(units))
        for s in self.systems:
            out += s.importance * s.removal_costs(units)
        return out

    def remove(self, unit: int) -> None:
        for s in self.systems:
            s.remove(unit)
        self.kept[unit] = False

    def add(self, unit: int) -> None:
        for s in self.systems:
            s.add(unit)
        self.kept[unit] = True

    def remove_cheapest(self, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """Remove the unit whose removal costs least; the first of equal ones."""
        which = np.flatnonzero(self.kept if allowed is None else self.kept & allowed)
        costs = self.removal_costs(which)
        unit = int(which[np.argmin(costs)])
        self.remove(unit)
        return unit

    def exchange(self, rounds: int, parts: Sequence[IntArray] = ()) -> int:
        """Put the best unit back and remove the cheapest, until it is the same one.

        Parameters
        ----------
        rounds : exchanges at most
        parts : units of which each part keeps its number; none: all are one part

        Returns
        -------
        How many exchanges were made. None of them raises the error.
        """
        made = 0
        for part in parts or [np.arange(len(self.kept))]:
            allowed = np.zeros_like(self.kept)
            allowed[part] = True
            while made < rounds:
                outside = np.flatnonzero(~self.kept & allowed)
                if not len(outside) or not (self.kept & allowed).any():
                    break
                gains = np.zeros(len(outside))
                for s in self.systems:
                    gains += s.importance * s.addition_gains(outside)
                best = int(outside[int(np.argmax(gains))])
                self.add(best)
                worst = self.remove_cheapest(allowed)
                if worst == best:
                    break
                made += 1
        return made
