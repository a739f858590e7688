"""Where a search begins: something feasible at once, then something good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers.base import Watch

from .chunks import Incumbent
from .construct import QUICK, cheap_start, greedy_exchange_start, repair_counts
from .instance import Instance, build_instance

__all__ = ["Start", "prepare"]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A laid-out problem and a feasible assignment in the order of the kernels."""

    inst: Instance
    x: npt.NDArray[np.int8]


def prepare(
    problem: QUBO | CardinalityQP,
    x0: npt.NDArray[np.int8] | None,
    watch: Watch,
    incumbent: Incumbent,
    precision: str = "auto",
    *,
    greedy: bool = True,
) -> Start:
    """Give the incumbent something feasible, lay the problem out and choose where to start.

    The start is x0 (greedily repaired if a count is wrong) or the greedy assignment, whichever is
    better; with ``greedy=False`` x0 itself wherever there is one. For a QUBO greedy means the
    empty assignment: its searches descend from there by themselves.

    Raises
    ------
    OutOfTime
        If the time limit passes while the couplings are laid out; the incumbent is set by then.
    """
    if isinstance(problem, CardinalityQP):
        feasible = x0 is not None and problem.violation(x0) == 0
        # nothing to show in the meantime: greedy comes as soon
        quick = problem.n <= QUICK and not problem.is_factored
        if feasible:
            assert x0 is not None
            incumbent.measure(x0)
        elif not quick:
            cost = np.asarray(problem.linear + problem.diagonal())
            incumbent.measure(cheap_start(cost, problem.groups, problem.k))
        inst = build_instance(problem, precision, None if quick else watch)
        candidates = []
        if x0 is not None:
            x = inst.inward(x0)
            candidates.append(x if feasible else repair_counts(inst, x))
        if greedy or not candidates:
            moves = watch.moves
            candidates.append(greedy_exchange_start(inst, "both", watch))
            watch.moves = moves  # set-up: an iteration limit is for the search
    else:
        incumbent.measure(np.zeros(problem.n, np.int8) if x0 is None else x0)
        if problem.n > QUICK and math.isfinite(watch.limits.time_s):
            # the empty assignment costs nothing to evaluate; one like the answer tells the cost
            incumbent.measure((np.arange(problem.n) % 2).astype(np.int8))
        inst = build_instance(problem, precision, watch)
        candidates = [np.zeros(problem.n, np.int8) if x0 is None else inst.inward(x0)]
    x = min(candidates, key=inst.energy) if len(candidates) > 1 else candidates[0]
    if isinstance(problem, CardinalityQP):
        incumbent.offer(inst.outward(x), inst.energy(x))
    return Start(inst, x)
