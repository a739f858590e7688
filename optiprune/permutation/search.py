"""Search for an order of channels with which an N:M pattern keeps more."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, lcm

import numpy as np
import numpy.typing as npt

from .descent import Descent

__all__ = ["kept_score", "search_order"]

Floats = npt.NDArray[np.floating]
Order = npt.NDArray[np.int64]

# share of the stripes that a restart shuffles
_SHAKEN = 0.15


def kept_score(scores: Floats, order: Order, n: int, m: int) -> float:
    """Sum of the n highest scores of every m consecutive weights, the channels in this order.

    Parameters
    ----------
    scores : (rows, cols); channel c owns the columns c * run to (c + 1) * run - 1, and ``run`` is
        cols / channels
    order : (channels,), order[i] is the channel that comes to position i

    m must divide cols.
    """
    rows, cols = scores.shape
    moved = scores.reshape(rows, len(order), -1)[:, order].reshape(rows, cols // m, m)
    return float(np.sort(moved, axis=2)[:, :, m - n :].sum(dtype=np.float64))


def search_order(
    scores: Sequence[Floats],
    channels: int,
    n: int,
    m: int,
    *,
    restarts: int = 0,
    seed: int | np.random.SeedSequence = 0,
) -> Order:
    """An order of the channels with which N:M keeps a higher sum of scores; never a lower one.

    After Pool and Yu 2021, "Channel permutations for N:M sparsity" (NeurIPS): local search over
    exchanges of channels between two stripes, the least numbers of channels whose weights fill
    whole groups. The best exchange of every pair of stripes is priced, the exchanges that gain most
    are made, and pairs with a stripe that changed are priced again. One channel is exchanged for
    one; where a stripe is four weights, also two for two, so that the result is a local optimum
    over all re-partitions of two stripes into groups of four (and of less than four, where single
    swaps are all there are). With longer groups, and for channels that own several columns, it is
    one over swaps of two channels of different stripes. Neither is a global optimum.

    Prices are float32 sums; a move is made if it gains in float64.

    Parameters
    ----------
    scores : of each layer that reads these channels, (rows, cols), non-negative and finite; their
        sums are added up, so scale them to what they should weigh
    channels : owns cols / channels consecutive columns each; m must divide cols
    restarts : times that a part of the stripes of the best order is shuffled and improved again
    seed : of the shuffles

    Returns
    -------
    (channels,) int64: the channel that comes to each position; 0, 1, ... if nothing better is found

    Raises
    ------
    ValueError
        n not in 1 .. m - 1; cols of some scores not divisible by m or by ``channels``; scores that
        are negative, NaN or infinite.
    """
    _check(scores, channels, n, m)
    same = np.arange(channels)
    runs = [s.shape[1] // channels for s in scores]
    # whole groups within a channel stay the same groups wherever it stands
    q = lcm(*(m // gcd(run, m) for run in runs)) if runs else 1
    if q == 1 or q == channels:
        return same
    blocks = _blocks([s for s, run in zip(scores, runs, strict=True) if run % m], channels)
    rng = np.random.default_rng(seed)
    search = Descent(blocks, same.copy(), q, n, m)
    search.run()
    best, value = search.order.copy(), search.value
    for _ in range(restarts):
        search.shake(_SHAKEN, rng)
        search.run()
        if search.value > value:
            best, value = search.order.copy(), search.value
        else:
            search.go_to(best)
    before, after = (sum(kept_score(s, o, n, m) for s in scores) for o in (same, best))
    return best if after > before else same


def _check(scores: Sequence[Floats], channels: int, n: int, m: int) -> None:
    if not 0 < n < m:
        raise ValueError(f"N:M needs 0 < N < M, got {n}:{m}")
    for s in scores:
        cols = s.shape[1]
        if channels < 1 or cols % channels or cols % m:
            raise ValueError(
                f"scores have {cols} columns; {channels} channels and groups of {m} must divide "
                "them"
            )
        if not np.isfinite(s).all() or (s < 0).any():
            raise ValueError("scores must be finite and not negative; give squares or magnitudes")


def _blocks(scores: Sequence[Floats], channels: int) -> list[npt.NDArray[np.float32]]:
    """The scores by length of run, (channels, run, rows) each."""
    by_run: dict[int, list[Floats]] = {}
    for s in scores:
        by_run.setdefault(s.shape[1] // channels, []).append(s)
    return [
        np.ascontiguousarray(
            np.concatenate(parts).reshape(-1, channels, run).transpose(1, 2, 0), dtype=np.float32
        )
        for run, parts in by_run.items()
    ]
