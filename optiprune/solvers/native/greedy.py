"""Greedy construction: one pass by marginal cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError

from .chunks import Incumbent
from .construct import cheap_start, greedy_exchange_start
from .instance import OutOfTime, Precision, build_instance, check_precision
from .rng import new_state
from .search import FlipSearch
from .start import Start

__all__ = ["Greedy"]


@dataclass(frozen=True)
class Greedy(BaseSolver):
    """Marginal costs, updated after every step; no search afterwards.

    `CardinalityQP`: "forward" adds the variable of least marginal cost until every group is full,
    "backward" removes the one of largest marginal cost from the full set, "both" keeps the better
    answer. `QUBO`: the best flip from the empty (forward) and the full (backward) assignment
    until none improves.

    Attributes
    ----------
    direction : "forward", "backward" or "both"
    precision : "auto", "float32" or "float64", of the fields inside
    """

    direction: Literal["both", "forward", "backward"] = "both"
    precision: Precision = "auto"

    name: ClassVar[str] = "greedy"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP}))

    def __post_init__(self) -> None:
        if self.direction not in ("both", "forward", "backward"):
            raise SolverOptionError(
                f"direction must be 'both', 'forward' or 'backward', got {self.direction!r}"
            )
        check_precision(self.precision)

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        incumbent = Incumbent(problem, watch)
        reason: str | None = None
        try:
            if isinstance(problem, CardinalityQP):
                cost = np.asarray(problem.linear + problem.diagonal())
                incumbent.measure(cheap_start(cost, problem.groups, problem.k))
                inst = build_instance(problem, self.precision, watch)
                reason = incumbent.reason_to_stop()
                if reason is None:
                    x = greedy_exchange_start(inst, self.direction)
                    watch.moves += int(np.abs(x.astype(np.int64)).sum())
                    incumbent.offer(inst.outward(x), inst.energy(x))
            else:
                incumbent.measure(np.zeros(problem.n, np.int8))
                inst = build_instance(problem, self.precision, watch)
                for value in (0, 1):
                    if self.direction == ("backward" if value == 0 else "forward"):
                        continue
                    begin = Start(inst, np.full(problem.n, value, np.int8))
                    search = FlipSearch(begin, new_state(seed), watch, incumbent)
                    x = search.state.x
                    incumbent.offer(x.copy(), inst.energy(x))
                    reason = search.descend()
                    if reason is not None:
                        break
        except OutOfTime:
            reason = "time"
        except KeyboardInterrupt:
            if incumbent.x is None:
                raise
            reason = "interrupted"
        return incumbent.outcome(reason or "completed")
