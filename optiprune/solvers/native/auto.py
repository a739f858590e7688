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
from optiprune.solvers.options import NEVER

from .annealing import Annealing
from .exhaustive import Exhaustive, assignments, work
from .local_search import LocalSearch
from .tabu import Tabu

__all__ = ["Auto"]

# additions up to which all assignments are visited: a proof in some 20 ms
_FEW = 1 << 24
# the most that a larger effort makes of that
_FEW_EFFORT = 64.0
# exchange tabu is best up to here, heat-bath annealing above
_TABU_N = 256


@dataclass(frozen=True)
class _AnnealingThenTabu(BaseSolver):
    """For a QUBO: tabu search that starts from what annealing found."""

    effort: float

    name: ClassVar[str] = "annealing, tabu"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO}))

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        first, second = seed.spawn(2)
        annealing, tabu = Annealing(), Tabu()
        sweeps = _scaled(annealing.sweeps_for(problem), self.effort)
        found = replace(annealing, sweeps=sweeps)._solve(problem, x0, first, watch)
        if found.stats.stop_reason != "completed":
            return found
        steps = _scaled(tabu.iterations_for(problem), self.effort)
        start = None if found.x is None else np.asarray(found.x, dtype=np.int8)
        return replace(tabu, iterations=steps)._solve(problem, start, second, watch)


@dataclass(frozen=True)
class Auto(BaseSolver):
    """Chooses by type and size; ``stats.message`` says what was chosen and why.

    Few assignments: exhaustive. `MIQP`: local search (support exchanges). `BudgetQP`: annealing.
    `CardinalityQP`: tabu search up to 256 variables, annealing above. `QUBO`: annealing, then tabu
    search from there (the first leads where coefficients span decades, the second elsewhere).

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
        # by the work and not by the count: few assignments may lie far apart in their tree
        countable = isinstance(problem, CardinalityQP | MIQP) or n <= 64
        if countable and work(problem) <= _FEW * min(self.effort, _FEW_EFFORT):
            count = assignments(problem)
            return Exhaustive(), f"only {count} assignments, all of them can be visited"
        if isinstance(problem, MIQP):
            starts = _scaled(LocalSearch().starts_for(problem), self.effort)
            return LocalSearch(starts=starts), "supports with re-fitted weights: exact exchanges"
        if isinstance(problem, BudgetQP):
            solver = Annealing()
            return (
                replace(solver, sweeps=_scaled(solver.sweeps_for(problem), self.effort)),
                "linear budgets: annealing within them",
            )
        if isinstance(problem, CardinalityQP) and n > _TABU_N:
            solver = Annealing()
            return (
                replace(solver, sweeps=_scaled(solver.sweeps_for(problem), self.effort)),
                f"{n} variables at fixed cardinality: heat-bath exchanges lead above {_TABU_N}",
            )
        if isinstance(problem, QUBO):
            return _AnnealingThenTabu(self.effort), (
                f"{n} variables without constraints: annealing, then tabu from its answer"
            )
        tabu = Tabu()
        tabu = replace(
            tabu,
            iterations=_scaled(tabu.iterations_for(problem), self.effort),
            settled=_scaled(tabu.settled_for(problem), self.effort),
        )
        return tabu, f"{n} variables at fixed cardinality: exchange tabu leads up to {_TABU_N}"

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


def _scaled(amount: int, effort: float) -> int:
    return max(1, round(min(amount * effort, NEVER)))
