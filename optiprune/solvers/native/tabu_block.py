"""Exchange tabu search on many small problems in one kernel call.

A solve of n = 64 takes a third of a millisecond in kernels and half as much in Python around some
ten of them; in threads, each of these calls hands the interpreter's lock over, and two threads
were no faster than one. Here problems of one size and grouping are laid out, started and searched
without Python in between. The kernels are those of a single solve, and so are the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from optiprune.problems import CardinalityQP
from optiprune.solvers.options import NEVER

from .construct import better_greedy
from .exchange import (
    ACCEPTED,
    BEST,
    CLOCK,
    RESTARTS,
    RUN_BEST,
    STEP,
    assign_slots,
    load,
    refresh_interval,
)
from .exchange_tabu import exchange_tabu
from .instance import SMALL, aligned, energy_of, fill, require_sums
from .rng import new_state
from .vector import copy

__all__ = ["BlockAnswer", "block_key", "solve_block"]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class BlockAnswer:
    """Of m problems: x, shape (m, n) int8; moves, accepted moves and restarts, shape (m,) int64.

    ``interrupted``: Ctrl-C came meanwhile; the answers are complete.
    """

    x: npt.NDArray[np.int8]
    moves: npt.NDArray[np.int64]
    accepted: npt.NDArray[np.int64]
    restarts: npt.NDArray[np.int64]
    interrupted: bool


def block_key(problem: CardinalityQP) -> tuple[int, bytes] | None:
    """What problems of one block have in common; None for one that cannot be in a block.

    Those are small, dense and in float64, and have their groups in order.
    """
    if problem.is_factored or not 0 < problem.n <= SMALL:
        return None
    if problem.n_groups == 1:
        return problem.n, b""
    if (problem.groups[1:] < problem.groups[:-1]).any():
        return None
    return problem.n, problem.groups.tobytes()


def solve_block(
    problems: Sequence[CardinalityQP],
    x0s: Sequence[npt.NDArray[np.int8] | None],
    seeds: Sequence[np.random.SeedSequence],
    parameters: npt.NDArray[np.int64],
) -> BlockAnswer:
    """Search problems of one `block_key`.

    Parameters
    ----------
    x0s : feasible starts, or None
    parameters : (m, 8), of each problem: steps, rows, tenure, spread, stall, weakest, strongest,
        settled, as `exchange_tabu` takes them
    """
    m, n = len(problems), problems[0].n
    Q = np.stack([np.asarray(p.Q, np.float64) for p in problems])
    a = np.stack([np.asarray(p.linear, np.float64) for p in problems])
    a += Q[:, np.arange(n), np.arange(n)]
    require_sums(2.0 * float(np.abs(Q).max()), a, Q.dtype)
    k = np.stack([p.k for p in problems]).astype(np.int64)
    starts = np.zeros(k.shape[1] + 1, np.int64)
    np.cumsum(np.bincount(problems[0].groups, minlength=k.shape[1]), out=starts[1:])
    x = np.zeros((m, n), np.int8)
    given = np.zeros(m, np.int8)
    for i, x0 in enumerate(x0s):
        if x0 is not None:
            x[i] = x0
            given[i] = 1
    offsets = np.array([p.offset for p in problems])
    rng = np.stack([new_state(s) for s in seeds])
    stride = max(32, -(-n // 32) * 32)
    work = aligned(n + 3, stride, np.float64)
    counters = np.zeros((m, 16), np.int64)
    interrupted = False
    try:
        _search(
            Q, a, offsets, starts, k, x, given, rng, parameters, work[:n], work[n:],
            np.empty((2, n)), np.empty((3, n), np.int8), np.empty((3, n), np.int64),
            np.empty((3, len(starts)), np.int64), np.empty((2, stride), np.int32), counters,
            np.zeros(8), refresh_interval(n),
        )  # fmt: skip
    except KeyboardInterrupt:
        # signals are seen when the kernel is done: nothing of it is lost
        interrupted = True
    return BlockAnswer(
        x, counters[:, STEP], counters[:, ACCEPTED], counters[:, RESTARTS], interrupted
    )


@njit(nogil=True, cache=True)
def _search(  # type: ignore[no-untyped-def]
    Q, a, offsets, starts, k, x, given, rng, parameters, J, wide, vectors, bits, lists, short,
    clocks, counters, floats, refresh,
):  # fmt: skip
    """Every problem in turn, in the same work space; the best assignments are left in x."""
    m, n = x.shape
    groups = k.shape[1]
    h, mask, leave = wide[0], wide[1], wide[2]
    gain, scratch = vectors[0], vectors[1]
    now, other, greedy = bits[0], bits[1], bits[2]
    missing, kept_starts, spans = short[0], short[1], short[2]
    none = -np.inf
    for q in range(m):
        fill(Q[q], J, 0, n)
        better_greedy(J, a[q], greedy, other, starts, k[q], gain, missing[:groups], scratch)
        start = greedy
        if given[q]:
            best = energy_of(J, a[q], greedy, scratch) + offsets[q]
            if energy_of(J, a[q], x[q], scratch) + offsets[q] <= best:
                copy(x[q], other)
                start = other
        movers = 0
        for g in range(groups):
            size = starts[g + 1] - starts[g]
            if 0 < k[q, g] < size:
                movers += size - k[q, g]
        for g in range(groups + 1):
            spans[g] = starts[g]
        spans[groups] = J.shape[1]
        for c in range(n, J.shape[1]):
            h[c] = 0.0
            mask[c] = none
        pruned = lists[0, :movers]
        pruned_group = lists[1, :movers]
        assign_slots(starts, k[q], pruned_group, kept_starts)
        kept = lists[2, : kept_starts[groups]]
        for f in range(floats.shape[0]):
            floats[f] = 0.0
        floats[BEST] = np.inf
        floats[RUN_BEST] = np.inf
        load(
            J, a[q], start, starts, k[q], h[:n], now, mask[:n], pruned, kept, x[q], scratch,
            counters[q], floats, 4.0 * _EPS,
        )  # fmt: skip
        if movers == 0:
            continue
        counters[q, CLOCK] = -1
        to_do = parameters[q]
        exchange_tabu(
            J, a[q], h, now, mask, pruned, pruned_group, kept, kept_starts, starts, spans, leave,
            clocks[0], clocks[1, :n], rng[q], counters[q], floats, x[q], scratch, to_do[0],
            to_do[1], to_do[2], to_do[3], to_do[4], to_do[5], to_do[6], to_do[7], refresh, -np.inf,
            NEVER,
        )  # fmt: skip
