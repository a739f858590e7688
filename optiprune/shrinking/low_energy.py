"""Several different selections of low energy: the solver's, and the best exchanges around them."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems import CardinalityQP
from optiprune.solvers import Solver, Stop

__all__ = ["Selection", "gate_problem", "low_energy", "neighbours"]

Selection = npt.NDArray[np.int8]


def gate_problem(
    g: npt.NDArray[np.float64],
    H: npt.NDArray[np.float64],
    k: int | npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64] | None = None,
) -> CardinalityQP:
    """Which gates stay 1, k of each group: the change of the loss ``g'd + d'Hd / 2``, d = x - 1."""
    ones = H.sum(1)
    return CardinalityQP(0.5 * H, g - ones, float(0.5 * ones.sum() - g.sum()), k=k, groups=groups)


def low_energy(
    problem: CardinalityQP,
    solver: Solver,
    stop: Stop | None,
    start: Selection,
    seed: np.random.SeedSequence,
    count: int,
) -> list[Selection]:
    """Up to ``count`` different selections, the lowest energy first.

    The solver runs once for each of a few seeds. Then the selections that were found are expanded,
    the lowest first, by the exchanges of a 1 with a 0 that cost least, until ``count`` of them have
    been expanded: of all selections one exchange apart from the best none of the ``count - 1``
    lowest is missed.
    """
    found: dict[bytes, tuple[float, Selection]] = {}

    def note(x: Any) -> None:
        x = np.asarray(x, dtype=np.int8)
        found.setdefault(x.tobytes(), (float(problem.energy(x)), x))

    # spawning counts up in the sequence itself: a copy, so that a second call draws the same
    fresh = np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)
    for child in fresh.spawn(min(count, 4)):
        answer = solver.solve(problem, x0=start, seed=child, stop=stop)
        if answer.x is not None:
            note(answer.x)
    if not found:
        note(start)
    if count > 1:
        heap = [(energy, key) for key, (energy, _) in found.items()]
        heapq.heapify(heap)
        expanded: set[bytes] = set()
        while heap and len(expanded) < count:
            _, key = heapq.heappop(heap)
            if key in expanded:
                continue
            expanded.add(key)
            for x in neighbours(problem, found[key][1], count):
                if x.tobytes() not in found:
                    note(x)
                    heapq.heappush(heap, (found[x.tobytes()][0], x.tobytes()))
    ranked = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
    return [x for _, (_, x) in ranked[:count]]


def neighbours(problem: CardinalityQP, x: Selection, count: int) -> list[Selection]:
    """The exchanges of two variables of one cardinality that raise the energy least."""
    Q = np.asarray(problem.Q)
    field = 2.0 * Q @ x + problem.linear
    found: list[tuple[float, int, int]] = []
    for c in range(problem.n_groups):
        ones = np.flatnonzero((problem.groups == c) & (x == 1))
        zeros = np.flatnonzero((problem.groups == c) & (x == 0))
        if not len(ones) or not len(zeros):
            continue
        change = (
            (np.diag(Q)[zeros] + field[zeros])[None, :]
            + (np.diag(Q)[ones] - field[ones])[:, None]
            - 2.0 * Q[np.ix_(ones, zeros)]
        )
        for flat in np.argsort(change, axis=None, kind="stable")[:count].tolist():
            i, j = divmod(flat, len(zeros))
            found.append((float(change[i, j]), int(ones[i]), int(zeros[j])))
    out = []
    for _, i, j in sorted(found)[:count]:
        y = x.copy()
        y[i], y[j] = 0, 1
        out.append(y)
    return out
