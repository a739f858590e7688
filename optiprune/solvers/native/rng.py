"""Random numbers inside kernels: xoshiro256++ on a state that the caller owns.

A kernel that keeps its generator in a uint64 array can stop after any step and be resumed, in
any thread, with the same outcome. numba's own ``np.random`` is one state per thread and cannot.

Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47 (2021).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["GUMBEL_BITS", "accepts", "below", "gumbel_table", "new_state", "next_u64", "uniform"]

GUMBEL_BITS = 15


def new_state(seed: np.random.SeedSequence) -> npt.NDArray[np.uint64]:
    """A generator state, uint64 (4,); never all zero (the one state that xoshiro cannot leave)."""
    s = np.asarray(seed.generate_state(4, np.uint64), dtype=np.uint64)
    if not s.any():
        s[0] = 1
    return s


@njit(nogil=True, cache=True)
def next_u64(s):  # type: ignore[no-untyped-def]
    """The next 64 random bits; advances the state s, uint64 (4,)."""
    u = s[0] + s[3]
    out = ((u << np.uint64(23)) | (u >> np.uint64(41))) + s[0]
    t = s[1] << np.uint64(17)
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = (s[3] << np.uint64(45)) | (s[3] >> np.uint64(19))
    return out


@njit(nogil=True, cache=True)
def uniform(s):  # type: ignore[no-untyped-def]
    """A float64 in [0, 1), 53 random bits."""
    return float(next_u64(s) >> np.uint64(11)) * 1.1102230246251565e-16


@njit(nogil=True, cache=True)
def below(s, m):  # type: ignore[no-untyped-def]
    """An integer in [0, m), 1 <= m < 2**32. The bias of at most m / 2**32 is accepted."""
    return np.int64(((next_u64(s) >> np.uint64(32)) * np.uint64(m)) >> np.uint64(32))


@cache
def gumbel_table(width: int, double: bool) -> npt.NDArray[np.floating[Any]]:
    """Gumbel noise to be read from a random offset: shape (2**GUMBEL_BITS + width,).

    The first 2**GUMBEL_BITS entries are the quantiles ``-log(-log((r + 1/2) / 2**GUMBEL_BITS))``
    in a fixed shuffled order, the rest repeats the beginning, so that ``width`` consecutive
    entries exist at every offset. Two logarithms a candidate would cost more than the row scan.
    """
    m = 1 << GUMBEL_BITS
    q = -np.log(-np.log((np.arange(m) + 0.5) / m))
    np.random.default_rng(0).shuffle(q)
    out: npt.NDArray[np.floating[Any]] = np.resize(q, m + width).astype(
        np.float64 if double else np.float32
    )
    out.flags.writeable = False
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def accepts(delta, beta, s):  # type: ignore[no-untyped-def]
    """Metropolis' rule: whether a change of ``delta`` happens at the inverse temperature ``beta``.

    ``1 - z <= exp(-z) <= 1 / (1 + z)`` decides most cases without the exponential.
    """
    if delta <= 0.0:
        return True
    z = delta * beta
    if not z < 30.0:
        return False
    u = uniform(s)
    return u < 1.0 - z or (u * (1.0 + z) < 1.0 and u < np.exp(-z))
