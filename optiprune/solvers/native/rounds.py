"""Tabu search and annealing by turns on one laid-out problem, in rounds; what `auto` uses when
neither leads alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch

from .annealing import Annealing
from .chunks import Incumbent
from .search import ExchangeSearch, FlipSearch, search_at
from .start import prepare
from .tabu import Tabu
from .temperature import temperature_for

__all__ = ["Rounds"]


@dataclass(frozen=True)
class Rounds(BaseSolver):
    """A round of `CardinalityQP` is tabu search from the start, annealing from the start, and tabu
    search from the best of both; of `QUBO`, annealing and tabu search from its answer.

    Attributes
    ----------
    effort : length of all rounds; the first has length 1 at most and each is at most twice as long
        as the last, so that a long effort is no single endless annealing
    """

    effort: float = 1.0

    name: ClassVar[str] = "annealing and tabu"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP}))

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        incumbent = Incumbent(problem, watch)
        reason: str | None = None
        with incumbent.kept():
            reason = self._search(problem, x0, seed, watch, incumbent)
        return incumbent.outcome(reason)

    def _search(
        self,
        problem: QUBO | CardinalityQP,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> str | None:
        start = prepare(problem, x0, watch, incumbent)
        reason = incumbent.reason_to_stop()
        search = None if reason else search_at(start, seed, watch, incumbent)
        if search is None:
            return reason
        turns = _Turns(search, problem)
        scale, done = min(1.0, self.effort), 0.0
        while True:
            reason = turns.round(scale)
            done += scale
            if reason is not None or done >= self.effort:
                return reason
            watch.restarts += 1
            scale = min(2.0 * scale, self.effort - done)


class _Turns:
    """The search with what each kind of turn needs."""

    def __init__(self, search: ExchangeSearch | FlipSearch, problem: QUBO | CardinalityQP) -> None:
        self.search = search
        self.begin = search.state.x.copy()
        self.plan = Tabu()._plan(problem, search.sweep)
        self.exchanges = isinstance(problem, CardinalityQP)
        n = problem.n
        # half the time each, by benchmarks.solver_portfolio
        self.sweeps = 200 if self.exchanges else Annealing().sweeps_for(problem)
        self.steps = 4 * n if self.exchanges else Tabu().iterations_for(problem)
        self.temperatures: tuple[float, float] | None = None

    def round(self, scale: float) -> str | None:
        reason = None
        if self.exchanges:
            self.search.restart(self.begin)
            reason = self._tabu(scale)
        if reason is None:
            self.search.restart(self.begin)
            reason = self._anneal(scale)
        return self._tabu(scale) if reason is None else reason

    def _anneal(self, scale: float) -> str | None:
        """From a local optimum at the start, and from the best state of all to another."""
        search = self.search
        reason = search.descend("first")
        if reason is not None:
            return reason
        if self.temperatures is None:
            hot, cold = (temperature_for(search.state, rate) for rate in _ACCEPTANCE)
            self.temperatures = hot, min(hot, cold)
        reason = search.anneal(*self.temperatures, max(1, round(self.sweeps * scale)))
        if reason is None:
            search.restart(search.state.best_x.copy())
            reason = search.descend("first")
        return reason

    def _tabu(self, scale: float) -> str | None:
        plan = self.plan
        return self.search.tabu(
            max(1, math.ceil(self.steps * scale)),
            tenure=plan.tenure,
            spread=plan.spread,
            stall=plan.stall,
            weakest=plan.weakest,
            strongest=plan.strongest,
            rows=plan.rows,
        )


_ACCEPTANCE = (Annealing.start_acceptance, Annealing.end_acceptance)
