"""The kernel of exhaustive search: every feasible assignment, as a depth-first tree.

Variable d is decided at depth d, 1 first. The fields of the variables still open are kept for
every depth, so that nothing is ever undone by subtraction and rounding errors cannot build up. A
branch that no completion can make feasible is left at once. Most nodes lie deep, where few fields
are open: the cost a leaf is a small constant.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["walk"]


@njit(cache=True, nogil=True)
def _within(use, least, most, lower, upper):  # type: ignore[no-untyped-def]
    """Whether some completion may still meet every budget row."""
    for r in range(use.shape[0]):
        slack = 1e-9 * (1.0 + abs(use[r]))
        if use[r] + least[r] > upper[r] + slack or use[r] + most[r] < lower[r] - slack:
            return False
    return True


@njit(cache=True, nogil=True)
def walk(  # type: ignore[no-untyped-def]
    J,
    fields,
    energies,
    groups,
    room,
    rest,
    counts,
    A,
    use,
    least,
    most,
    lower,
    upper,
    state,
    tried,
    x,
    best_x,
    best,
    steps,
):
    """Visit at most ``steps`` nodes; the number visited (fewer: the tree is done).

    J : (n, n) float64, twice the off-diagonal of Q; fields : (n + 1, n), row d holds the fields at
    depth d (row 0 filled by the caller); energies : (n + 1,)
    groups : (n,); room : (G,) ones that each group must hold (-1: any number);
    rest : (n + 1, G) members of each group at depth d or deeper; counts : (G,) ones so far
    A : (m, n) budget rows; use : (n + 1, m) spent at each depth; least, most : (n + 1, m) range of
    what deeper variables can add; lower, upper : (m,)
    state : (1,) current depth; tried : (n + 1,) 0 nothing yet, 1 one, 2 both; x, best_x : (n,)
    best : (1,) best energy
    """
    n = x.shape[0]
    rows = A.shape[0]
    d = state[0]
    done = 0
    while done < steps and d >= 0:
        done += 1
        if d == n:
            if energies[n] < best[0]:
                best[0] = energies[n]
                best_x[:] = x
            d -= 1
            continue
        g = groups[d]
        if tried[d] == 0:
            tried[d] = 1
            for r in range(rows):
                use[d + 1, r] = use[d, r] + A[r, d]
            fits = room[g] < 0 or counts[g] < room[g]
            if fits and _within(use[d + 1], least[d + 1], most[d + 1], lower, upper):
                x[d] = 1
                counts[g] += 1
                energies[d + 1] = energies[d] + fields[d, d]
                for j in range(d + 1, n):
                    fields[d + 1, j] = fields[d, j] + J[d, j]
                d += 1
                tried[d] = 0
        elif tried[d] == 1:
            tried[d] = 2
            if x[d] == 1:
                x[d] = 0
                counts[g] -= 1
            for r in range(rows):
                use[d + 1, r] = use[d, r]
            fits = room[g] < 0 or counts[g] + rest[d + 1, g] >= room[g]
            if fits and _within(use[d + 1], least[d + 1], most[d + 1], lower, upper):
                energies[d + 1] = energies[d]
                for j in range(d + 1, n):
                    fields[d + 1, j] = fields[d, j]
                d += 1
                tried[d] = 0
        else:
            d -= 1
    state[0] = d
    return done


def group_rest(groups: npt.NDArray[np.int64], n_groups: int) -> npt.NDArray[np.int64]:
    """(n + 1, G): members of each group at or behind every depth."""
    n = len(groups)
    rest = np.zeros((n + 1, n_groups), dtype=np.int64)
    for d in range(n - 1, -1, -1):
        rest[d] = rest[d + 1]
        rest[d, groups[d]] += 1
    return rest
