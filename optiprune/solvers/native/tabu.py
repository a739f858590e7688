"""Tabu search: exchanges at fixed cardinality, flips without constraints."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, CardinalityQP, Problem
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import check_whole
from optiprune.solvers.result import SolveStats, Status

from .chunks import Incumbent
from .instance import Precision, check_precision
from .search import search_at
from .start import prepare
from .support_search import SupportSearch
from .tabu_block import block_key, solve_block

__all__ = ["Tabu"]


# steps of a search in a block at most: those of a block of 16 take half a second at worst
_BLOCK_STEPS = 20_000
# variables up to which exchange tabu gives a run up early (benchmarks.solver_portfolio)
_SHORT_RUNS = 384


class _Plan(NamedTuple):
    """What the kernels are told, in the order of `solve_block`; 0 steps are without end."""

    steps: int
    rows: int
    tenure: int
    spread: int
    stall: int
    weakest: int
    strongest: int
    settled: int


@dataclass(frozen=True)
class Tabu(BaseSolver):
    """Iterated tabu search.

    `CardinalityQP`: every step makes the best exchange between a window of the pruned variables,
    elsewhere in every step, and all kept ones, of those whose two variables did not move in the
    last few steps. `QUBO`: the best such flip, or one that beats the incumbent. After ``stall``
    steps without progress the incumbent is perturbed at random and the search goes on from there;
    exchanges perturb it the more, the longer it has stood. `MIQP`: the best exchange of two members
    of the support with weights re-fitted, between the members that are cheapest to lose and all
    others, priced exactly (see `LocalSearch`); by descent where weights are bounded.

    Source: Glover, "Tabu search", ORSA J. Computing 1 (1989); Palubeckis, "Iterated tabu search
    for the unconstrained binary quadratic optimization problem", Informatica 17 (2006).

    Attributes
    ----------
    iterations : steps in all; 0 goes on until a stop criterion is met. None chooses by size for
        flips; for exchanges it leaves the end to ``settled``, and bounds them by size
    settled : of exchanges: the search ends that many steps after four times those that the
        incumbent took, so that easy problems are left early; 0 is never, None is by size, or never
        where ``iterations`` is given
    window : of exchanges: pruned variables looked at in a step (of an `MIQP`: members, the
        cheapest to lose); None: 8 and a quarter of them, 40 at most (64 members)
    tenure : steps for which a moved variable stays put; None: 1 for exchanges (a window that
        moves does most of the work; 10 and more collapses), n / 100 for flips and at least
        min(10, n / 5)
    spread : up to spread - 1 random steps are added to it; None: 4 for exchanges, 10 for flips
    stall : steps without a better energy before a perturbation; None chooses by size
    precision : "auto", "float32" or "float64", of the fields inside
    """

    iterations: int | None = None
    settled: int | None = None
    window: int | None = None
    tenure: int | None = None
    spread: int | None = None
    stall: int | None = None
    precision: Precision = "auto"

    name: ClassVar[str] = "tabu"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP, MIQP}))

    def __post_init__(self) -> None:
        check_whole(self, iterations=0, settled=0, window=1, tenure=0, spread=1, stall=1)
        check_precision(self.precision)

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        if self.iterations == 0 and watch.limits.unlimited:
            raise SolverOptionError("iterations=0 runs until a stop criterion is met; give one")
        incumbent = Incumbent(problem, watch)
        reason: str | None = None
        if isinstance(problem, MIQP):
            with incumbent.kept():
                reason = self._subset(problem, x0, seed, watch, incumbent)
            return incumbent.outcome(reason)
        message = ""
        if isinstance(problem, QUBO) and not (self.window is None and self.settled is None):
            message = "window and settled are of exchanges: without constraints they do nothing"
        with incumbent.kept():
            start = prepare(problem, x0, watch, incumbent, self.precision)
            reason = incumbent.reason_to_stop()
            search = None if reason else search_at(start, seed, watch, incumbent)
            if search is not None:
                plan = self._plan(problem, search.sweep)
                reason = search.tabu(
                    plan.steps or math.inf,
                    tenure=plan.tenure,
                    spread=plan.spread,
                    stall=plan.stall,
                    weakest=plan.weakest,
                    strongest=plan.strongest,
                    rows=plan.rows,
                    settled=plan.settled,
                )
        return incumbent.outcome(reason, message)

    def _subset(
        self,
        problem: MIQP,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> str | None:
        search = SupportSearch(problem, seed, watch, incumbent)
        search.first(x0)
        reason = incumbent.reason_to_stop()
        if reason is not None:
            return reason
        x = search.start(x0)
        if problem.k in (0, problem.n):
            return None
        if search.bounded:
            return search.descend(x)
        plan = self._plan(problem, problem.k)
        return search.tabu(
            x,
            plan.steps or math.inf,
            rows=plan.rows,
            tenure=plan.tenure,
            spread=plan.spread,
            stall=plan.stall,
            weakest=plan.weakest,
            strongest=plan.strongest,
            settled=plan.settled,
        )

    def _alike(self, problem: Problem) -> Hashable:
        # a block looks at no criterion, and at Ctrl-C when it is done: not for long searches
        if not isinstance(problem, CardinalityQP):
            return None
        if not 0 < self.iterations_for(problem) <= _BLOCK_STEPS:
            return None
        return None if self.precision == "float32" else block_key(problem)

    def _solve_alike(
        self,
        problems: Sequence[Any],
        x0s: Sequence[npt.NDArray[np.int8] | None],
        seeds: Sequence[np.random.SeedSequence],
    ) -> list[Outcome] | None:
        sizes = np.bincount(problems[0].groups, minlength=problems[0].n_groups)
        plans: list[_Plan] = []
        for p, x0 in zip(problems, x0s, strict=True):
            if x0 is not None and p.violation(x0) > 0:
                return None  # has to be repaired first
            plans.append(self._plan(p, int((sizes - p.k)[p.k > 0].sum())))
        found = solve_block(problems, x0s, seeds, np.array(plans, np.int64))
        return [
            Outcome(
                found.x[i],
                Status.FEASIBLE,
                SolveStats(
                    solver=self.name,
                    stop_reason="interrupted" if found.interrupted else "completed",
                    moves=int(found.moves[i]),
                    accepted=int(found.accepted[i]),
                    restarts=int(found.restarts[i]),
                ),
            )
            for i in range(len(problems))
        ]

    def _plan(self, problem: QUBO | CardinalityQP | MIQP, sweep: int) -> _Plan:
        """The kernel's parameters; ``sweep`` variables that can move (pruned ones for exchanges of
        a cardinality, members for those of a support), or n."""
        n = problem.n
        exchanges = not isinstance(problem, QUBO)
        # few movers: a tenure as long as the list would make everything tabu
        movers = min(sweep, n - sweep) if exchanges else n
        if isinstance(problem, MIQP):
            tenure, spread, stall = 2, 4, max(20, n // 2)
            weakest, strongest = min(4, movers), max(4, movers // 4)
        elif exchanges:
            # small ones: many short runs; beyond, a run takes longer to come down
            tenure, spread, stall = 1, 4, max(30, n // 2 if n <= _SHORT_RUNS else 2 * n)
            weakest, strongest = 2, max(3, movers // 4)
        else:
            tenure, spread, stall = max(n // 100, min(10, n // 5)), 10, 8 * n + 30
            # up to half of all: milder ones fall back into the same basin (p3000.4, .5)
            weakest, strongest = min(n, 10), max(min(n, 10), n // 2)
        tenure = tenure if self.tenure is None else self.tenure
        return _Plan(
            self.iterations_for(problem),
            self._rows(problem, sweep),
            min(tenure, max(0, movers // 4)),
            min(self.spread or spread, max(1, movers // 4)),
            self.stall or stall,
            weakest,
            strongest,
            self._settled(problem),
        )

    def iterations_for(self, problem: QUBO | CardinalityQP | MIQP) -> int:
        """Steps on this problem: ``iterations``, or by size; 0 without a limit."""
        if self.iterations is not None:
            return self.iterations
        n = problem.n
        if isinstance(problem, MIQP):
            return 1000 + 20 * n
        return (
            max(9000 - 16 * n, 20 * n) if isinstance(problem, CardinalityQP) else 10_000 + 300 * n
        )

    def settled_for(self, problem: CardinalityQP | MIQP) -> int:
        """Steps for which an incumbent has to stand by default; see ``settled``."""
        if self.settled is not None:
            return self.settled
        n = problem.n
        return max(10_000 // max(1, n), 100 + 2 * n) if isinstance(problem, MIQP) else 200 + 8 * n

    def _settled(self, problem: QUBO | CardinalityQP | MIQP) -> int:
        if not isinstance(problem, QUBO) and self.iterations is None:
            return self.settled_for(problem)
        return self.settled or 0

    def _rows(self, problem: QUBO | CardinalityQP | MIQP, movers: int) -> int:
        """Variables whose exchanges a step looks at."""
        if isinstance(problem, QUBO):
            return 0
        if self.window is not None:
            return self.window
        if isinstance(problem, MIQP):
            return min(movers, 64)
        return min(movers, 8 + movers // 4, 40)
