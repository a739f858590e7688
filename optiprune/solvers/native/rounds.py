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
from optiprune.solvers.errors import SolverOptionError

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
    effort : length of all rounds; those are the squares of Luby's sequence 1, 1, 2, 1, 1, 2, 4, ...
        (Luby, Sinclair and Zuckerman, "Optimal speedup of Las Vegas algorithms", Information
        Processing Letters 47 (1993)): half the time goes into the longest, the rest into shorter
        ones that begin anew
    """

    effort: float = 1.0

    name: ClassVar[str] = "annealing and tabu"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP}))

    def __post_init__(self) -> None:
        if not 0 < self.effort < math.inf:
            raise SolverOptionError(f"effort must be a positive number, got {self.effort}")

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
        done, number = 0.0, 1
        while True:
            scale = min(_luby(number) ** 2, self.effort - done)
            reason = turns.round(scale)
            done += scale
            if reason is not None or done >= self.effort:
                return reason
            watch.restarts += 1
            number += 1


def _luby(i: int) -> int:
    """The i-th term of 1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8, ...; i >= 1."""
    while i & (i + 1):  # not the last of a sequence of 2^m - 1
        i -= (1 << (i.bit_length() - 1)) - 1
    return (i + 1) >> 1


class _Turns:
    """The search with what each kind of turn needs. A round does not know of those before it."""

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
        self.search.begin_again(self.begin)
        if self.exchanges:
            reason = self._tabu(scale)
            if reason is None:
                self.search.restart(self.begin)
        if reason is None:
            reason = self._anneal(scale)
        return self._tabu(scale) if reason is None else reason

    def _anneal(self, scale: float) -> str | None:
        """From a local optimum at the start, and from the round's best state to another."""
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
