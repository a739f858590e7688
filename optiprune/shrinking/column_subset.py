"""Which units a layer can do without, if what is left is fitted again: removal and exchange.

A layer with dense weights W reads inputs with the Gram matrix G. Without the columns of some units
the best weights B on the columns S that are left minimise ``tr (B - W)' (G + lambda I) (B - W)``.
The principal pivot transform of (G + lambda I, G W) on S holds the inverse P on S, the Schur
complement on the rest, B on S, and minus the residual ``G (W - B)`` on the rest. So one formula,
``tr V_u' M_uu^-1 V_u``, is both what removing a unit costs (the step of Optimal Brain Surgeon for a
block; Meng et al. 2024, OSSCAR, arXiv 2403.12983, for units) and what adding it gains, and one
update of the unit's rank makes either move, exactly (Tucker 1960; Tsatsomeros 2000 for the
transform).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.linalg import blas

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
    M: FloatArray = field(init=False)
    V: FloatArray = field(init=False)
    inside: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        G = np.array(self.G, dtype=np.float64)
        mean = float(np.mean(np.diag(G))) if len(G) else 0.0
        # dead inputs have no curvature at all: the ridge alone keeps them where they are
        G[np.diag_indices_from(G)] += self.damping * mean if mean > 0 else 1.0
        self.G = G
        factor = scipy.linalg.cho_factor(G, lower=True)
        self.M = np.ascontiguousarray(scipy.linalg.cho_solve(factor, np.eye(len(G))))
        self.V = np.array(self.W, dtype=np.float64, order="C")
        self.inside = np.ones(len(G), dtype=bool)

    @property
    def B(self) -> FloatArray:
        """Weights on the columns that are left, zero on the others, (cols, rows)."""
        return np.where(self.inside[:, None], self.V, 0.0)

    def worth(self, units: IntArray) -> FloatArray:
        """What removing each unit costs, or adding it gains, without ``importance``."""
        out = np.zeros(len(units))
        lengths = np.array([len(self.columns[i]) for i in units.tolist()])
        for length in np.unique(lengths[lengths > 0]).tolist():
            which = np.flatnonzero(lengths == length)
            at = np.stack([self.columns[units[i]] for i in which])
            v = self.V[at]
            if length == 1:
                squares = np.einsum("ijk,ijk->i", v, v)
                out[which] = squares / self.M[at[:, 0], at[:, 0]]
            else:
                blocks = self.M[at[:, :, None], at[:, None, :]]
                out[which] = (v * np.linalg.solve(blocks, v)).sum((1, 2))
        return out

    def flip(self, unit: int) -> None:
        """Remove a unit that is left, or add one that is not."""
        u = self.columns[unit]
        if not len(u):
            return
        inverse = np.linalg.inv(self.M[np.ix_(u, u)])
        across = self.M[:, u] @ inverse
        row, value = self.M[u], self.V[u]
        _subtract(self.M, across, row)
        _subtract(self.V, across, value)
        self.M[u] = -inverse @ row
        self.M[:, u] = across
        self.M[np.ix_(u, u)] = inverse
        self.V[u] = -inverse @ value
        self.inside[u] = ~self.inside[u]

    def error(self) -> float:
        """``tr (B - W)' G (B - W)`` with the ridge, without ``importance``."""
        d = self.B - self.W
        return float(np.sum(d * (self.G @ d)))


def _subtract(A: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """``A -= left @ right`` where A lies: what it costs is memory traffic."""
    blas.dgemm(-1.0, right.T, left.T, 1.0, A.T, overwrite_c=1)


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

    def worth(self, units: IntArray) -> FloatArray:
        """What removing each unit costs, or adding it gains."""
        out = np.zeros(len(units))
        for s in self.systems:
            out += s.importance * s.worth(units)
        return out

    def flip(self, unit: int) -> None:
        """Remove a unit that is left, or add one that is not."""
        for s in self.systems:
            s.flip(unit)
        self.kept[unit] = ~self.kept[unit]

    def remove_cheapest(self, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """Remove the unit whose removal costs least; the first of equal ones."""
        which = np.flatnonzero(self.kept if allowed is None else self.kept & allowed)
        unit = int(which[np.argmin(self.worth(which))])
        self.flip(unit)
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
                best = int(outside[int(np.argmax(self.worth(outside)))])
                self.flip(best)
                worst = self.remove_cheapest(allowed)
                if worst == best:
                    break
                made += 1
        return made
