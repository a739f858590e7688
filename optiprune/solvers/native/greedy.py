"""Greedy construction: one pass by marginal cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError

from .budget_search import budget_start
from .chunks import Incumbent
from .construct import cheap_start, greedy_exchange_start
from .instance import Precision, build_instance, check_precision
from .rng import new_state
from .search import FlipSearch
from .start import Start
from .support_search import SupportSearch

__all__ = ["Greedy"]


@dataclass(frozen=True)
class Greedy(BaseSolver):
    """Marginal costs, updated after every step; no search afterwards.

    `CardinalityQP`: "forward" adds the variable of least marginal cost until every group is full,
    "backward" removes the one of largest marginal cost from the full set. `QUBO`: the best flip
    from the empty (forward) and the full (backward) assignment until none improves. `BudgetQP`:
    the same within the budgets, after flips that repair a start which breaks one. `MIQP`: forward
    selection and backward elimination with re-fitted weights (optimal brain surgeon). "both"
    keeps the better answer.

    Attributes
    ----------
    direction : "forward", "backward" or "both"
    precision : "auto", "float32" or "float64", of the fields inside (an MIQP is always float64)
    """

    direction: Literal["both", "forward", "backward"] = "both"
    precision: Precision = "auto"

    name: ClassVar[str] = "greedy"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, BudgetQP, MIQP})
    )

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
        message = ""
        reason: str | None = None
        with incumbent.kept():
            if isinstance(problem, CardinalityQP):
                reason = self._cardinality(problem, watch, incumbent)
            elif isinstance(problem, MIQP):
                search = SupportSearch(problem, seed, watch, incumbent)
                search.first(None)
                reason = incumbent.reason_to_stop()
                if reason is None:
                    search.greedy(self.direction)
            elif isinstance(problem, BudgetQP):
                ways = ("forward", "backward") if self.direction == "both" else (self.direction,)
                start = budget_start(
                    problem, x0, seed, watch, incumbent, self.precision, directions=ways
                )
                message, reason = start.message, start.reason
            else:
                reason = self._flips(problem, seed, watch, incumbent)
        return incumbent.outcome(reason, message)

    def _cardinality(
        self, problem: CardinalityQP, watch: Watch, incumbent: Incumbent
    ) -> str | None:
        cost = np.asarray(problem.linear + problem.diagonal())
        incumbent.measure(cheap_start(cost, problem.groups, problem.k))
        inst = build_instance(problem, self.precision, watch)
        reason = incumbent.reason_to_stop()
        if reason is None:
            x = greedy_exchange_start(inst, self.direction, watch)
            incumbent.offer(inst.outward(x), inst.energy(x))
        return reason

    def _flips(
        self, problem: QUBO, seed: np.random.SeedSequence, watch: Watch, incumbent: Incumbent
    ) -> str | None:
        incumbent.measure(np.zeros(problem.n, np.int8))
        inst = build_instance(problem, self.precision, watch)
        for value, direction in ((0, "forward"), (1, "backward")):
            if self.direction not in ("both", direction) or problem.n == 0:
                continue
            begin = Start(inst, np.full(problem.n, value, np.int8))
            search = FlipSearch(begin, new_state(seed), watch, incumbent)
            incumbent.offer(begin.x, inst.energy(begin.x))
            reason = search.descend()
            if reason is not None:
                return reason
        return None
