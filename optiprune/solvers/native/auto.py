"""The default solver: picks one of the native ones and says which and why."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import NEVER

from .annealing import Annealing
from .branch_and_bound import BranchAndBound
from .exhaustive import Exhaustive, assignments, work
from .local_search import LocalSearch
from .rounds import Rounds
from .tabu import Tabu

__all__ = ["Auto"]

# additions up to which all assignments are visited: a proof in some 10 ms
_FEW = 1 << 24
# additions up to which visiting all takes no longer than a proof by bounds, some 5 ms
_VISITED = 1 << 22
# the same for an MIQP with finite M; without, visiting up to `_FEW` is faster throughout
_VISITED_BOUNDED = 1 << 19
# the most that a larger effort makes of that
_FEW_EFFORT = 64.0
# exchange tabu alone up to here (benchmarks.solver_portfolio)
_TABU_N = 256


@dataclass(frozen=True)
class Auto(BaseSolver):
    """Chooses by type and size; ``stats.message`` says what was chosen and why.

    Few assignments: exhaustive, or branch and bound where that is faster. `MIQP`: tabu search
    over supports, local search where weights are bounded. `BudgetQP`: annealing. `CardinalityQP`:
    tabu search up to 256 variables, tabu search and annealing by turns beyond. `QUBO`: annealing,
    then tabu search from there (the first leads where coefficients span decades, the second
    elsewhere).

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
        total = work(problem) if countable else math.inf
        if total <= _FEW * min(self.effort, _FEW_EFFORT):
            count = assignments(problem)
            # bounds on the weights cost enumeration an active-set solve for most supports
            bounded = isinstance(problem, MIQP) and bool(np.isfinite(problem.M).all())
            most = _VISITED_BOUNDED if bounded else _VISITED
            if total > most and (bounded or isinstance(problem, CardinalityQP | QUBO)):
                return BranchAndBound(), f"{count} assignments: few enough for a proof by bounds"
            return Exhaustive(), f"only {count} assignments, all of them can be visited"
        if isinstance(problem, MIQP):
            if np.isinf(problem.M).all():
                return self._tabu(problem), "supports with re-fitted weights: exchange tabu"
            starts = _scaled(LocalSearch().starts_for(problem), self.effort)
            return LocalSearch(starts=starts), "supports with bounded weights: exact exchanges"
        if isinstance(problem, BudgetQP):
            solver = Annealing()
            return (
                replace(solver, sweeps=_scaled(solver.sweeps_for(problem), self.effort)),
                "linear budgets: annealing within them",
            )
        if isinstance(problem, QUBO):
            return Rounds(self.effort), (
                f"{n} variables without constraints: annealing, then tabu from its answer"
            )
        if n > _TABU_N:
            return Rounds(self.effort), (
                f"{n} variables at fixed cardinality: tabu and annealing by turns above {_TABU_N}"
            )
        return self._tabu(
            problem
        ), f"{n} variables at fixed cardinality: exchange tabu leads up to {_TABU_N}"

    def _tabu(self, problem: CardinalityQP | MIQP) -> Tabu:
        tabu = Tabu()
        return replace(
            tabu,
            iterations=_scaled(tabu.iterations_for(problem), self.effort),
            settled=_scaled(tabu.settled_for(problem), self.effort),
        )

    def _alike(self, problem: Any) -> Hashable:
        solver, why = self.choose(problem)
        key = solver._alike(problem)
        return None if key is None else (solver, why, key)

    def _solve_alike(
        self,
        problems: Sequence[Any],
        x0s: Sequence[npt.NDArray[np.int8] | None],
        seeds: Sequence[np.random.SeedSequence],
    ) -> list[Outcome] | None:
        solver, why = self.choose(problems[0])
        outcomes = solver._solve_alike(problems, x0s, seeds)
        return None if outcomes is None else [_told(o, solver, why) for o in outcomes]

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        solver, why = self.choose(problem)
        return _told(solver._solve(problem, x0, seed, watch), solver, why)


def _told(outcome: Outcome, solver: BaseSolver, why: str) -> Outcome:
    """With the choice in its message."""
    said = f"auto chose '{solver.name}': {why}"
    if outcome.stats.message:
        said = f"{said}; {outcome.stats.message}"
    extra = {**outcome.stats.extra, "chosen": solver.name}
    return replace(outcome, stats=replace(outcome.stats, message=said, extra=extra))


def _scaled(amount: int, effort: float) -> int:
    return max(1, round(min(amount * effort, NEVER)))
