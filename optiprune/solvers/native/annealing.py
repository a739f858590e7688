"""Simulated annealing: exchanges at fixed cardinality, flips without, both under budgets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, BudgetQP, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import check_whole

from .budget_search import BudgetSearch, BudgetStart, budget_start
from .chunks import Incumbent
from .instance import Precision, check_precision
from .search import ExchangeSearch, FlipSearch, search_at
from .start import prepare
from .temperature import temperature_for

__all__ = ["Annealing"]

# variables up to which several short runs are better than a long one
_SHORT = 192


@dataclass(frozen=True)
class Annealing(BaseSolver):
    """Simulated annealing on fields that are kept up to date, one row of Q an accepted move.

    `CardinalityQP`: exchanges inside a group, so that every state is feasible. ``"heat-bath"``
    takes a random pruned i in and lets go of one of the k + 1 kept, drawn from their Boltzmann
    weights; ``"metropolis"`` proposes random pairs. `QUBO`: flips in order, by Metropolis' rule.
    `BudgetQP`: random flips and exchanges that keep every budget, by Metropolis' rule.
    Temperatures fall geometrically, between those at which a share ``start_acceptance`` and
    ``end_acceptance`` of the moves would be accepted at the start (greedy or x0, descended to a
    local optimum); then the best state found descends again.

    Source: Kirkpatrick, Gelatt and Vecchi, "Optimization by simulated annealing", Science 220
    (1983); Gumbel-max sampling of the heat bath as in Maddison, Tarlow and Minka, "A* sampling"
    (2014).

    Attributes
    ----------
    sweeps : proposals per pruned variable (per variable for a QUBO) and restart; None chooses by
        size
    restarts : annealing runs; None chooses by size (small problems are annealed several times), 0
        goes on until a stop criterion is met, doubling the sweeps each time
    moves : "heat-bath" or "metropolis" (QUBO always uses the latter, one flip at a time)
    start_acceptance, end_acceptance : shares of moves that set the temperatures
    t_start, t_end : temperatures in units of the energy, instead of those
    precision : of the fields inside the search; "auto" takes float32 unless that would lose
        information. Energies returned are float64 in any case.
    """

    sweeps: int | None = None
    restarts: int | None = None
    moves: Literal["heat-bath", "metropolis"] = "heat-bath"
    start_acceptance: float = 0.6
    end_acceptance: float = 0.01
    t_start: float | None = None
    t_end: float | None = None
    precision: Precision = "auto"

    name: ClassVar[str] = "annealing"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP, BudgetQP}))

    def __post_init__(self) -> None:
        check_whole(self, sweeps=1, restarts=0)
        if self.moves not in ("heat-bath", "metropolis"):
            raise SolverOptionError(
                f"moves must be 'heat-bath' or 'metropolis', got {self.moves!r}"
            )
        if not 0 < self.end_acceptance <= self.start_acceptance < 1:
            raise SolverOptionError(
                "0 < end_acceptance <= start_acceptance < 1 is needed, got "
                f"{self.start_acceptance} and {self.end_acceptance}"
            )
        for key in ("t_start", "t_end"):
            t = getattr(self, key)
            if t is not None and not 0 < t < math.inf:
                raise SolverOptionError(f"{key} must be positive (or None), got {t}")
        if self.t_start is not None and self.t_end is not None and self.t_end > self.t_start:
            raise SolverOptionError(f"t_end = {self.t_end} is above t_start = {self.t_start}")
        check_precision(self.precision)

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        if self.restarts == 0 and watch.limits.unlimited:
            raise SolverOptionError("restarts=0 runs until a stop criterion is met; give one")
        incumbent = Incumbent(problem, watch)
        message = ""
        reason: str | None = None
        with incumbent.kept():
            if isinstance(problem, BudgetQP):
                start = budget_start(problem, x0, seed, watch, incumbent, self.precision)
                message, reason = start.message, start.reason
                if start.found and reason is None and problem.n:
                    reason = self._within_budgets(start, seed, watch, incumbent)
                return incumbent.outcome(reason, message)
            reason = self._search(problem, x0, seed, watch, incumbent)
        return incumbent.outcome(reason, message)

    def _search(
        self,
        problem: QUBO | CardinalityQP,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> str | None:
        start = prepare(problem, x0, watch, incumbent, self.precision)
        reason = incumbent.reason_to_stop()
        if reason is not None:
            return reason
        search = search_at(start, seed, watch, incumbent, self.moves)
        if search is None:
            return None
        reason = search.descend("first")
        if reason is not None:
            return reason
        begin = search.state.x.copy()
        hot, cold = self._temperatures(search)
        return self._runs(search, problem, begin, hot, cold, lambda: search.descend("first"))

    def _within_budgets(
        self,
        start: BudgetStart,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> str | None:
        search = BudgetSearch(start, seed, watch, incumbent)
        reason = search.descend()
        if reason is not None:
            return reason
        begin = search.state.x.copy()
        hot, cold = search.temperatures(self.start_acceptance, self.end_acceptance)
        hot = hot if self.t_start is None else self.t_start
        cold = cold if self.t_end is None else self.t_end
        return self._runs(search, start.problem, begin, hot, min(hot, cold), search.descend)

    def _runs(
        self,
        search: ExchangeSearch | FlipSearch | BudgetSearch,
        problem: QUBO | CardinalityQP | BudgetQP,
        begin: npt.NDArray[np.int8],
        hot: float,
        cold: float,
        descend: Callable[[], str | None],
    ) -> str | None:
        """Annealing runs from ``begin``, each ended by a descent from the best state so far."""
        sweeps = self.sweeps_for(problem)
        runs = _default_restarts(problem.n) if self.restarts is None else self.restarts
        run = 0
        while True:
            reason = search.anneal(hot, cold, sweeps)
            if reason is None:
                search.restart(search.state.best_x.copy())
                reason = descend()
            if reason is not None:
                return reason
            run += 1
            if run == runs:
                return None
            search.watch.restarts += 1
            if runs == 0:
                sweeps *= 2
            if not (isinstance(search, BudgetSearch) and search.scatter()):
                search.restart(begin)

    def sweeps_for(self, problem: QUBO | CardinalityQP | BudgetQP) -> int:
        """Sweeps of a run: ``sweeps``, or by size; more where few variables move."""
        if self.sweeps is not None:
            return self.sweeps
        n = problem.n
        movers = n
        if isinstance(problem, CardinalityQP):
            movers = 2 * (n - int(problem.k.sum()))
        if isinstance(problem, QUBO):
            return 400  # flips in order are cheap
        base = 100 if n <= _SHORT else 400
        if self.moves == "metropolis":
            base *= 10  # a proposal looks at one pair and not at a whole row
        return int(base * min(5.0, max(1.0, n / max(1, movers))))

    def _temperatures(self, search: ExchangeSearch | FlipSearch) -> tuple[float, float]:
        bath = self.moves == "heat-bath"
        hot, cold = self.t_start, self.t_end
        if hot is None:
            hot = temperature_for(search.state, self.start_acceptance, bath)
        if cold is None:
            cold = temperature_for(search.state, self.end_acceptance, bath)
        return hot, min(cold, hot)


def _default_restarts(n: int) -> int:
    """Runs by default: at n = 20 (64, 128) this meets the optimum in all (99 %, 90 %) of solves.

    Above, one long run ends lower than several short ones.
    """
    return max(1, min(20, 1280 // max(1, n))) if n <= _SHORT else 1
