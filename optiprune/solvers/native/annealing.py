"""Simulated annealing: exchanges at fixed cardinality, flips without constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError

from .chunks import Incumbent
from .instance import OutOfTime, Precision, check_precision
from .search import search_at
from .start import prepare

__all__ = ["Annealing"]


@dataclass(frozen=True)
class Annealing(BaseSolver):
    """Simulated annealing on fields that are kept up to date, one row of Q an accepted move.

    `CardinalityQP`: exchanges inside a group, so that every state is feasible. ``"heat-bath"``
    takes a random pruned i in and lets go of one of the k + 1 kept, drawn from their Boltzmann
    weights; ``"metropolis"`` proposes random pairs. `QUBO`: flips in order, by Metropolis' rule.
    Temperatures fall geometrically from ``t_start`` to ``t_end`` times the mean |field| at the
    greedy start, then the best state found descends to a local optimum.

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
    t_start, t_end : temperatures, in units of the mean |field|
    precision : of the fields inside the search; "auto" takes float32 unless that would lose
        information. Energies returned are float64 in any case.
    """

    sweeps: int | None = None
    restarts: int | None = None
    moves: Literal["heat-bath", "metropolis"] = "heat-bath"
    t_start: float = 0.5
    t_end: float = 0.05
    precision: Precision = "auto"

    name: ClassVar[str] = "annealing"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP}))

    def __post_init__(self) -> None:
        if self.sweeps is not None and self.sweeps < 1:
            raise SolverOptionError(f"sweeps must be >= 1 (or None), got {self.sweeps}")
        if self.restarts is not None and self.restarts < 0:
            raise SolverOptionError(f"restarts must be >= 0 (or None), got {self.restarts}")
        if self.moves not in ("heat-bath", "metropolis"):
            raise SolverOptionError(
                f"moves must be 'heat-bath' or 'metropolis', got {self.moves!r}"
            )
        if not 0 < self.t_end <= self.t_start:
            raise SolverOptionError(
                f"0 < t_end <= t_start is needed, got t_start={self.t_start}, t_end={self.t_end}"
            )
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
        reason: str | None = None
        try:
            reason = self._search(problem, x0, seed, watch, incumbent)
        except OutOfTime:
            reason = "time"
        except KeyboardInterrupt:
            if incumbent.x is None:
                raise
            reason = "interrupted"
        return incumbent.outcome(reason or "completed")

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
        if isinstance(problem, QUBO):
            reason = search.descend()
            if reason is not None:
                return reason
        scale = search.scale
        begin = search.state.x.copy()
        sweeps = self.sweeps or _default_sweeps(problem.n)
        runs = _default_restarts(problem.n) if self.restarts is None else self.restarts
        run = 0
        while True:
            reason = search.anneal(self.t_start * scale, self.t_end * scale, sweeps)
            if reason is None:
                search.restart(search.state.best_x.copy())
                reason = search.descend()
            if reason is not None:
                return reason
            run += 1
            if run == runs:
                return None
            watch.restarts += 1
            if runs == 0:
                sweeps *= 2
            search.restart(begin)


def _default_sweeps(n: int) -> int:
    return 200


def _default_restarts(n: int) -> int:
    return max(1, min(10, 1000 // max(1, n)))
