"""Local search: descent to a local optimum, from several starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import check_whole

from .budget_search import BudgetSearch, budget_start
from .chunks import Incumbent
from .instance import Instance, Precision, check_precision
from .search import search_at
from .start import prepare
from .support_search import SupportSearch

__all__ = ["LocalSearch"]


@dataclass(frozen=True)
class LocalSearch(BaseSolver):
    """Descent until no move improves: exchanges at fixed cardinality, flips without.

    The first start is x0 or, without one, the greedy assignment; the others are random. Under
    budgets (`BudgetQP`) moves are flips and exchanges that keep every budget. For an `MIQP` a move
    exchanges two members of the support and is priced exactly, weights re-optimised, from the
    inverse Gram matrix of the support: removing p costs ``w_p^2 / (2 [H_SS^-1]_pp)`` and adding q
    gains ``r_q^2 / (2 s_q)`` with the residual r and the Schur complement s (Hassibi and Stork,
    "Second order derivatives for network pruning: optimal brain surgeon", NIPS 1992).

    Attributes
    ----------
    starts : descents; None chooses by size (1 for an MIQP of more than 100 variables), 0 goes on
        until a stop criterion is met
    strategy : "best" takes the best move of all, "first" the best move of the first variable that
        has an improving one (under budgets always the latter, for an MIQP always the former)
    precision : of the fields inside the search; energies returned are float64 in any case
    """

    starts: int | None = None
    strategy: Literal["best", "first"] = "best"
    precision: Precision = "auto"

    name: ClassVar[str] = "local-search"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, BudgetQP, MIQP})
    )

    def __post_init__(self) -> None:
        check_whole(self, starts=0)
        if self.strategy not in ("best", "first"):
            raise SolverOptionError(f"strategy must be 'best' or 'first', got {self.strategy!r}")
        check_precision(self.precision)

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        if self.starts == 0 and watch.limits.unlimited:
            raise SolverOptionError("starts=0 runs until a stop criterion is met; give one")
        incumbent = Incumbent(problem, watch)
        message = ""
        reason: str | None = None
        with incumbent.kept():
            if isinstance(problem, MIQP):
                reason = SupportSearch(problem, seed, watch, incumbent).run(
                    x0, self.starts_for(problem)
                )
            elif isinstance(problem, BudgetQP):
                start = budget_start(problem, x0, seed, watch, incumbent, self.precision)
                message, reason = start.message, start.reason
                if start.found and reason is None:
                    search = BudgetSearch(start, seed, watch, incumbent)
                    reason = search.multi_descend(self.starts_for(problem))
            else:
                reason = self._binary(problem, x0, seed, watch, incumbent)
        return incumbent.outcome(reason, message)

    def starts_for(self, problem: QUBO | CardinalityQP | BudgetQP | MIQP) -> int:
        """Descents on this problem: ``starts``, or by size."""
        if self.starts is not None:
            return self.starts
        n = max(1, problem.n)
        if isinstance(problem, MIQP):
            return max(1, min(50, 20_000 // (n * n)))
        return max(1, min(200, 4000 // n))

    def _binary(
        self,
        problem: QUBO | CardinalityQP,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> str | None:
        start = prepare(problem, x0, watch, incumbent, self.precision, greedy=x0 is None)
        reason = incumbent.reason_to_stop()
        if reason is not None:
            return reason
        search = search_at(start, seed, watch, incumbent)
        if search is None:
            return None
        generator = np.random.default_rng(seed.spawn(1)[0])
        starts = self.starts_for(problem)
        done = 0
        while True:
            reason = search.descend(self.strategy)
            done += 1
            if reason is not None or done == starts:
                return reason
            watch.restarts += 1
            search.restart(random_assignment(start.inst, generator))


def random_assignment(inst: Instance, generator: np.random.Generator) -> npt.NDArray[np.int8]:
    """A uniformly random feasible assignment, in the order of the kernels."""
    if len(inst.k) == 0:
        return generator.integers(0, 2, inst.n, dtype=np.int8)
    # the k smallest of random keys in each group, all groups at once
    groups = np.repeat(np.arange(len(inst.k)), np.diff(inst.starts))
    order = np.lexsort((generator.random(inst.n), groups))
    rank = np.arange(inst.n) - inst.starts[:-1][groups]
    x = np.zeros(inst.n, np.int8)
    x[order[rank < inst.k[groups]]] = 1
    return x
