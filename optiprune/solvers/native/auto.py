"""The default solver: picks one of the native ones and says which and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError

from .annealing import Annealing
from .exhaustive import Exhaustive, assignments
from .local_search import LocalSearch
from .tabu import Tabu

__all__ = ["Auto"]

# up to here all assignments are visited: a proof in some 10 ms
_FEW = 1 << 18
_FEW_SUPPORTS = 1 << 14
# exchange tabu is best up to here, heat-bath annealing above
_TABU_N = 256


@dataclass(frozen=True)
class Auto(BaseSolver):
    """Chooses by type and size; ``stats.message`` says what was chosen and why.

    Few assignments: exhaustive. `MIQP`: local search (support exchanges). `BudgetQP`: annealing.
    `CardinalityQP`: tabu search up to 256 variables, annealing above. `QUBO`: tabu search.

    Attributes
    ----------
    effort : multiplies the sweeps, iterations or starts of the solver chosen; 1 is its default
    """

    effort: float = 1.0

    name: ClassVar[str] = "auto"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, BudgetQP, MIQP})
    )

    def __post_init__(self) -> None:
        if not 0 < self.effort < math.inf:
            raise SolverOptionError(f"effort must be a positive number, got {self.effort}")

    def choose(self, problem: QUBO | CardinalityQP | BudgetQP | MIQP) -> tuple[BaseSolver, str]:
        """The solver for a problem, with the reason in words."""
        n = problem.n
        few = _FEW_SUPPORTS if isinstance(problem, MIQP) else _FEW
        if isinstance(problem, CardinalityQP | MIQP) or n <= 64:
            count = assignments(problem)
            if count <= few * self.effort:
                return Exhaustive(), f"only {count} assignments, all of them can be visited"
        if isinstance(problem, MIQP):
            starts = max(1, round(self.effort * LocalSearch().starts_for(problem)))
            return LocalSearch(starts=starts), "supports with re-fitted weights: exact exchanges"
        if isinstance(problem, BudgetQP):
            solver = Annealing()
            return (
                replace(solver, sweeps=self._scaled(solver.sweeps_for(problem))),
                "linear budgets: annealing within them",
            )
        if isinstance(problem, CardinalityQP) and n > _TABU_N:
            solver = Annealing()
            return (
                replace(solver, sweeps=self._scaled(solver.sweeps_for(problem))),
                f"{n} variables at fixed cardinality: heat-bath exchanges lead above {_TABU_N}",
            )
        tabu = Tabu()
        tabu = replace(tabu, iterations=self._scaled(tabu.iterations_for(problem)))
        if isinstance(problem, CardinalityQP):
            return tabu, f"{n} variables at fixed cardinality: exchange tabu leads up to {_TABU_N}"
        return tabu, f"{n} variables without constraints: one-flip tabu with restarts"

    def _scaled(self, amount: int) -> int:
        return max(1, round(amount * self.effort))

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        solver, why = self.choose(problem)
        outcome = solver._solve(problem, x0, seed, watch)
        said = f"auto chose '{solver.name}': {why}"
        if outcome.stats.message:
            said = f"{said}; {outcome.stats.message}"
        extra = {**outcome.stats.extra, "chosen": solver.name}
        return replace(outcome, stats=replace(outcome.stats, message=said, extra=extra))
