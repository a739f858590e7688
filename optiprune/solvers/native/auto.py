"""Choose a solver by the type and size of the problem, and say which one and why."""

from __future__ import annotations

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

# assignments that the tree of 'exhaustive' sees in about a millisecond
_ENUMERABLE = 2.0**16
# exchange tabu is best up to here, annealing above: docs/solvers.md has the measurement
_TABU_MAX_N = 256
_SWEEPS = 20


@dataclass(frozen=True)
class Auto(BaseSolver):
    """Picks 'exhaustive', 'tabu', 'annealing' or 'local-search'; ``stats.message`` says which.

    - few enough assignments to enumerate in a moment: exhaustive, with a proof;
    - an MIQP: local-search on supports;
    - up to 256 variables: tabu; more: annealing, 20 sweeps times ``effort``.

    Parameters
    ----------
    effort : factor on the work of the heuristics, > 0
    """

    effort: float = 1.0

    name: ClassVar[str] = "auto"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, BudgetQP, MIQP})
    )

    def __post_init__(self) -> None:
        if not 0 < self.effort < float("inf"):
            raise SolverOptionError(f"effort must be positive and finite, got {self.effort!r}")

    def choose(self, problem: Any) -> tuple[BaseSolver, str]:
        """The solver for a problem, and the reason."""
        count = assignments(problem)
        if count <= _ENUMERABLE:
            return Exhaustive(), f"{count:.3g} assignments can be enumerated"
        if isinstance(problem, MIQP):
            return LocalSearch(), "an MIQP: exchange search on supports"
        if isinstance(problem, BudgetQP):
            return Annealing(), "linear budgets: flips and exchanges"
        if problem.n <= _TABU_MAX_N:
            return Tabu(), f"n = {problem.n} <= {_TABU_MAX_N}"
        sweeps = max(1, round(_SWEEPS * self.effort))
        return Annealing(sweeps=sweeps, restarts=1), f"n = {problem.n} > {_TABU_MAX_N}"

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        solver, reason = self.choose(problem)
        outcome = solver._solve(problem, x0, seed, watch)
        message = f"chose '{solver.name}': {reason}"
        if outcome.stats.message:
            message = f"{message}; {outcome.stats.message}"
        stats = replace(outcome.stats, message=message)
        return replace(outcome, stats=stats)
