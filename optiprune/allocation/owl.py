"""Outlier-weighed layerwise sparsity: densities from the share of outlying weights.

Yin et al., "Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity", 2023, arXiv:2310.05175. A weight's score is |w| times the norm of its input, as in
Wanda; an outlier has a score of more than M times the mean of its layer. The density of a layer
rises with its share of outliers, within lambda of the common density. Here layers are weight
matrices (the paper sets one density for a transformer block) and the mean over all weights is kept
exactly.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .errors import AllocationError

__all__ = ["outlier_share", "owl_densities"]


def outlier_share(score: npt.NDArray[np.floating], threshold: float) -> float:
    """Share of the scores, all >= 0, that exceed ``threshold`` times their mean; 0 for none.

    The mean is taken in float64.
    """
    if score.size == 0:
        return 0.0
    mean = float(np.mean(score, dtype=np.float64))
    return float(np.count_nonzero(score > threshold * mean)) / score.size


def owl_densities(
    shares: npt.ArrayLike, sizes: npt.ArrayLike, density: float, reach: float
) -> npt.NDArray[np.float64]:
    """Densities that rise in proportion to the outlier shares.

    Parameters
    ----------
    shares : (layers,) outlier shares
    sizes : (layers,) > 0, what a density is weighted by in the mean: the layer's weights
    density : common density, in (0, 1]
    reach : lambda, the largest distance from ``density``; where it is larger than half of it, or
        than 1 - density, that is taken in its place, so that no layer is emptied or overfull

    Returns
    -------
    (layers,) float64 with weighted mean ``density`` and the layer farthest off at the reach; all
    at ``density`` where the shares are equal.

    Raises
    ------
    AllocationError
        On shapes that differ or values out of range.
    """
    d, n = np.asarray(shares, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if d.ndim != 1 or d.shape != n.shape or not np.isfinite(d).all() or not (n > 0).all():
        raise AllocationError(
            f"shares {d.shape} and sizes {n.shape} must be finite vectors of one length, sizes > 0"
        )
    if not (0.0 < density <= 1.0 and reach >= 0.0):
        raise AllocationError(f"density must be in (0, 1] and reach >= 0, got {density}, {reach}")
    if d.size == 0:
        return d
    reach = min(reach, 0.5 * density, 1.0 - density)
    off = d - math.fsum(d * n) / math.fsum(n)
    most = float(np.abs(off).max())
    # shares that are equal but for rounding tell nothing
    if most <= 1e-12 * float(np.abs(d).max()):
        return np.full(d.shape, density)
    return density + off * (reach / most)
