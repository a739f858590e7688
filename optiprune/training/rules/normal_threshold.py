"""Thresholds from a distribution of weights: how far from zero a share of them lies.

The weights of a layer are standardised and a threshold is read off the normal distribution, so
that a target share follows without sorting them, and weights far out of the bulk stay whatever the
share (US 12,045,723 B2, claims 1 and 6: a weight threshold set to a target pruning rate from the
statistical weight distribution, a standard normal one; the patent's text that was at hand prints
no formula). The one used here: with mean m and deviation s of the values, T solves

    Phi((T - m) / s) - Phi((-T - m) / s) = rate

which for m = 0 is T = s * Phi^-1((1 + rate) / 2): for weights drawn from a normal distribution
exactly that share lies within (-T, T), whatever its mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

__all__ = ["lower_threshold", "magnitude_threshold"]

Values = npt.NDArray[np.floating]


def magnitude_threshold(values: Values, rate: float) -> float:
    """T > 0 such that ``rate`` of a normal distribution of the same mean and deviation lies within
    (-T, T).

    Parameters
    ----------
    values : any shape, finite
    rate : in [0, 1)

    Returns
    -------
    0.0 for a rate of zero, for no values, and where all values are equal: these cannot be told
    apart.

    Raises
    ------
    ValueError
        A rate outside [0, 1).
    """
    _check(rate)
    m, s = _moments(values)
    if rate == 0 or s == 0:
        return 0.0
    high = (abs(m) + s * float(ndtri((1 + rate) / 2))) * (1 + 1e-9)  # above it in any rounding

    def excess(t: float) -> float:
        return float(ndtr((t - m) / s) - ndtr((-t - m) / s)) - rate

    return float(brentq(excess, 0.0, high, xtol=1e-12 * high))


def lower_threshold(values: Values, rate: float) -> float:
    """T such that ``rate`` of a normal distribution of the same mean and deviation lies below it.

    Parameters, errors and degenerate values as for `magnitude_threshold`, which gives minus
    infinity where that gives zero: nothing lies below.
    """
    _check(rate)
    m, s = _moments(values)
    return -np.inf if rate == 0 or s == 0 else m + s * float(ndtri(rate))


def _moments(values: Values) -> tuple[float, float]:
    v = np.asarray(values, dtype=np.float64)
    if not v.size or np.ptp(v) == 0:
        return 0.0, 0.0
    return float(v.mean()), float(v.std())


def _check(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"rate = {rate} must be in [0, 1)")
