"""The damage of pruning one layer, as a function of how many of its weights are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from .errors import AllocationError

__all__ = ["DamageCurve", "density_levels"]

_Vector = npt.NDArray[np.float64]


def density_levels(density: float, levels: int, span: float) -> tuple[float, ...]:
    """``levels`` densities in equal ratios from ``density / span`` to ``density * span``, below 1.

    The common density is one of them, so that the uniform allocation is measured too; where the
    upper end is cut at 1, the last level lies one ratio below it.

    Parameters
    ----------
    density : in (0, 1)
    levels : >= 2; one more where the common density fell between two
    span : > 1
    """
    top = min(1.0, density * span)
    grid = np.geomspace(density / span, top, levels + (top == 1.0))
    inside = [float(d) for d in grid if d < 1.0 and abs(d - density) > 1e-9]
    return tuple(sorted([*inside, density]))


@dataclass(frozen=True, slots=True, eq=False)
class DamageCurve:
    """Damage of one layer, measured at some counts of kept weights and at 0 for all of them.

    Between the measured points it is interpolated by a monotone cubic over the logarithm of the
    count (Fritsch & Carlson 1980), below the first it is that of the first.

    Attributes
    ----------
    kept : (points,) int64, rising; the last is the size of the layer
    measured : (points,) float64, as measured
    damage : (points,) float64, not rising: a layer can leave weights unused, so that more of them
        never have to do more damage, and what a measurement says otherwise is noise
    """

    kept: npt.NDArray[np.int64]
    measured: _Vector
    damage: _Vector

    @classmethod
    def of(cls, kept: npt.ArrayLike, measured: npt.ArrayLike, size: int) -> DamageCurve:
        """From counts in 1 .. size and their damage; the whole layer is added with damage 0.

        Raises `AllocationError` if there is no count, one is out of range or stands twice, or a
        damage is not finite.
        """
        k = np.asarray(kept, dtype=np.int64)
        d = np.asarray(measured, dtype=np.float64)
        if k.ndim != 1 or k.shape != d.shape or k.size == 0:
            raise AllocationError(f"counts {k.shape} and damages {d.shape} must be equal vectors")
        if k.min() < 1 or k.max() > size or np.unique(k).size != k.size:
            raise AllocationError(f"counts must be different numbers from 1 to {size}, got {k}")
        if not np.isfinite(d).all():
            raise AllocationError(f"damages must be finite, got {d}")
        order = np.argsort(k)
        k, d = k[order], d[order]
        if k[-1] != size:
            k, d = np.append(k, size), np.append(d, 0.0)
        return cls(k, d, np.minimum.accumulate(d))

    def at(self, kept: npt.ArrayLike) -> _Vector:
        """Damage at any counts in 0 .. size, in their shape."""
        k = np.clip(np.asarray(kept, dtype=np.float64), self.kept[0], self.kept[-1])
        if self.kept.size == 1:
            return np.full(k.shape, self.damage[0])
        with np.errstate(over="ignore"):  # a slope of next to nothing, whose inverse is not needed
            curve = PchipInterpolator(np.log(self.kept.astype(np.float64)), self.damage)
        return np.asarray(curve(np.log(k)), dtype=np.float64)
