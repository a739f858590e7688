"""What exchanges of channels between stripes gain: kernels over scores laid out by channel.

A stripe is the least number of channels whose weights fill whole groups of M. ``S`` is (channels,
run, rows) float32 and non-negative: channel c owns ``run`` consecutive weights in each row.
``order`` (channels,) says which channel stands at each position.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["PAIRS", "best_swaps", "insertion_gains", "pair_exchanges", "stripe_value"]


@njit(nogil=True, cache=True, fastmath=True)
def _insert(top, carry):
    """Put ``carry`` (rows,) among the largest values of each row, descending in ``top`` (n, rows);
    ``carry`` becomes what falls out."""
    n, rows = top.shape
    for i in range(n):
        held = top[i]
        for r in range(rows):
            a, b = held[r], carry[r]
            held[r] = a if a > b else b
            carry[r] = b if a > b else a


@njit(nogil=True, cache=True, fastmath=True)
def insertion_gains(S, order, at, q, n, m, out):
    """Add to ``out`` (q, channels) what the stripe at position ``at`` keeps more with a channel put
    in place of the one that stands at each of its q positions."""
    channels, run, rows = S.shape
    fixed = np.empty((n, rows), np.float32)
    top = np.empty((n, rows), np.float32)
    carry = np.empty(rows, np.float32)
    value = np.empty(channels, np.float64)
    for k in range(q):
        value[:] = 0.0
        begin, end = k * run, (k + 1) * run
        for g in range(begin // m, (end - 1) // m + 1):
            fixed[:] = 0.0
            for s in range(g * m, g * m + m):
                if s < begin or s >= end:
                    carry[:] = S[order[at + s // run], s % run]
                    _insert(fixed, carry)
            first, last = max(g * m, begin) - begin, min(g * m + m, end) - begin
            least = fixed[n - 1]
            for c in range(channels):
                total = np.float32(0.0)
                if last - first == 1:
                    own = S[c, first]
                    for r in range(rows):
                        d = own[r] - least[r]
                        total += d if d > 0.0 else np.float32(0.0)
                else:
                    top[:] = fixed
                    for i in range(first, last):
                        own = S[c, i]
                        carry[:] = own
                        _insert(top, carry)
                        for r in range(rows):
                            total += own[r] - carry[r]
                value[c] += total
        here = value[order[at + k]]
        for c in range(channels):
            out[k, c] += np.float32(value[c] - here)


@njit(nogil=True, cache=True)
def stripe_value(S, members, n, m):
    """Sum of the scores that a stripe keeps with ``members`` (q,) in this order; float64."""
    run, rows = S.shape[1], S.shape[2]
    total = 0.0
    top = np.empty(n, np.float64)
    for g in range(len(members) * run // m):
        for r in range(rows):
            top[:] = 0.0
            for s in range(g * m, g * m + m):
                v = S[members[s // run], s % run, r]
                for i in range(n):
                    if v > top[i]:
                        top[i], v = v, top[i]
            total += top.sum()
    return total


@njit(nogil=True, cache=True)
def best_swaps(D, order, q, gain, which):
    """The best swap of one channel for each pair of stripes a < b.

    ``D`` (channels, channels) is that of `insertion_gains`, position by channel. Written are
    ``gain`` and ``which`` (stripes, stripes): k * q + l for the k-th channel of a and l-th of b.
    """
    stripes = len(order) // q
    for a in range(stripes):
        for b in range(a + 1, stripes):
            gain[a, b] = 0.0
            for k in range(q):
                for e in range(q):
                    i, j = a * q + k, b * q + e
                    d = D[i, order[j]] + D[j, order[i]]
                    if d > gain[a, b]:
                        gain[a, b] = d
                        which[a, b] = k * q + e


# the pairs of four; the one at 5 - i is what the one at i leaves
PAIRS = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])


@njit(nogil=True, cache=True, fastmath=True)
def _sorted_pairs(S, order, at, high, low):
    """Larger and smaller score of each row for the six pairs of a stripe of four, (6, rows)."""
    for i in range(6):
        x, y = S[order[at + PAIRS[i, 0]], 0], S[order[at + PAIRS[i, 1]], 0]
        for r in range(len(x)):
            a, b = x[r], y[r]
            high[i, r] = a if a > b else b
            low[i, r] = b if a > b else a


@njit(nogil=True, cache=True, fastmath=True)
def _kept_of_four(n, high, low, other_high, other_low):
    """Sum over rows of the n largest of two sorted pairs, n of 1 to 3."""
    total = np.float32(0.0)
    for r in range(len(high)):
        a, b, c, d = high[r], low[r], other_high[r], other_low[r]
        if n == 1:
            total += a if a > c else c
        elif n == 3:
            total += a + b + c + d - (b if b < d else d)
        else:
            less, rest = (a if a < c else c), (b if b > d else d)
            total += (a if a > c else c) + (less if less > rest else rest)
    return total


@njit(nogil=True, cache=True)
def pair_exchanges(S, order, n, values, stale, gain, which):
    """The best exchange of two channels of stripe a for two of stripe b, stripes of four, run 1.

    With the single swaps these are all 35 partitions of eight channels. Only pairs with a stripe
    that is ``stale`` are looked at. ``which[a, b]`` is 6 i + j: the i-th pair of a stays and is
    joined by the j-th of b. ``values`` (stripes,) is what each keeps now.
    """
    rows, stripes = S.shape[2], len(order) // 4
    high, low = np.empty((6, rows), np.float32), np.empty((6, rows), np.float32)
    high_b, low_b = np.empty((6, rows), np.float32), np.empty((6, rows), np.float32)
    for a in range(stripes):
        _sorted_pairs(S, order, 4 * a, high, low)
        for b in range(a + 1, stripes):
            if not (stale[a] or stale[b]):
                continue
            _sorted_pairs(S, order, 4 * b, high_b, low_b)
            gain[a, b] = 0.0
            for i in range(3):
                for j in range(6):
                    d = _kept_of_four(n, high[i], low[i], high_b[j], low_b[j])
                    d += _kept_of_four(n, high[5 - i], low[5 - i], high_b[5 - j], low_b[5 - j])
                    d -= values[a] + values[b]
                    if d > gain[a, b]:
                        gain[a, b] = d
                        which[a, b] = 6 * i + j
