"""Search under linear budgets: where it starts, and descent and annealing from there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems import BudgetQP
from optiprune.problems.binary import forgiven
from optiprune.solvers.base import Watch

from .budget_kernels import (
    budget_first,
    budget_flips,
    budget_metropolis,
    budget_repair,
    budget_sample,
    budget_use,
)
from .chunks import Incumbent
from .exchange import CURRENT, IN_SWEEP, MARGIN, REFUSED, STEP, TEMPERATURE
from .flips import FlipState
from .instance import Instance, build_instance
from .rng import new_state, next_u64
from .search import KernelRun
from .temperature import metropolis_temperature

__all__ = ["BudgetSearch", "BudgetStart", "budget_start"]

# repair attempts, each from another assignment, and steps of each per variable
_ATTEMPTS = 20
_REPAIR_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Budgets laid out for the kernels: AT (n, m), limits with rounding slack, row weights."""

    AT: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]

    @classmethod
    def of(cls, problem: BudgetQP) -> _Rows:
        A = np.asarray(problem.A, dtype=np.float64)
        size = np.abs(A).max(axis=1, initial=0.0)
        # half of what `BudgetQP.violation` forgives, so that what fits here fits there: of the
        # limit, or of the least entry where only a sum with an entry in it can pass the limit
        least = np.where(A != 0, np.abs(A), np.inf).min(axis=1, initial=np.inf)
        least = np.where(np.isfinite(least), least, 0.0)
        below = 0.5 * forgiven(problem.lower, np.where(problem.lower <= 0, least, 0.0))
        above = 0.5 * forgiven(problem.upper, np.where(problem.upper >= 0, least, 0.0))
        return cls(
            np.ascontiguousarray(A.T),
            np.asarray(problem.lower - below, dtype=np.float64),
            np.asarray(problem.upper + above, dtype=np.float64),
            1.0 / np.where(size > 0, size, 1.0),
        )


@dataclass(frozen=True, slots=True, eq=False)
class BudgetStart:
    """A laid-out problem and feasible assignments, best first; none if none was found."""

    problem: BudgetQP
    inst: Instance
    rows: _Rows
    found: list[npt.NDArray[np.int8]]
    reason: str | None

    @property
    def message(self) -> str:
        """What to tell the user when nothing was found."""
        if self.found:
            return ""
        return (
            f"no assignment within the budgets was found in {_ATTEMPTS} attempts; give a feasible "
            "x0, more time, or use 'highs' to learn whether one exists"
        )


def budget_start(
    problem: BudgetQP,
    x0: npt.NDArray[np.int8] | None,
    seed: np.random.SeedSequence,
    watch: Watch,
    incumbent: Incumbent,
    precision: str = "auto",
    directions: tuple[str, ...] = ("forward", "backward"),
) -> BudgetStart:
    """Find feasible starts: x0 (repaired if need be), greedy from nothing and from everything.

    Each is repaired by flips where it breaks a budget and then improved greedily by feasible
    flips. Random assignments are repaired only if all of those fail.

    Raises `OutOfTime` if the time limit passes while the couplings are laid out.
    """
    n = problem.n
    if x0 is not None and problem.violation(x0) == 0:
        incumbent.measure(x0)
    inst = build_instance(problem, precision, watch)
    rows = _Rows.of(problem)
    rng = new_state(seed)
    generator = np.random.default_rng(seed.spawn(1)[0])
    candidates = [] if x0 is None else [x0]
    if "forward" in directions:
        candidates.append(np.zeros(n, np.int8))
    if "backward" in directions:
        candidates.append(np.ones(n, np.int8))
    found: list[tuple[float, npt.NDArray[np.int8]]] = []
    if incumbent.x is not None:
        # at once: a criterion may be met before the first attempt
        found.append((inst.energy(incumbent.x) - inst.offset, incumbent.x.copy()))
    reason: str | None = None
    for attempt in range(_ATTEMPTS):
        if attempt >= len(candidates) and found:
            break
        reason = incumbent.reason_to_stop()
        if reason is not None:
            break
        if attempt < len(candidates):
            x = candidates[attempt].copy()
        else:
            x = generator.integers(0, 2, n, dtype=np.int8)
        search = BudgetSearch.at(problem, inst, rows, x, rng, watch, incumbent)
        feasible, reason = search.repair()
        if feasible and problem.violation(search.state.x) == 0:
            found.append((float(search.state.floats[CURRENT]), search.state.x.copy()))
            search.record()
            if reason is None:
                reason = search.fill()
                found.append((float(search.state.floats[CURRENT]), search.state.x.copy()))
        if reason is not None:
            break
    found.sort(key=lambda pair: pair[0])
    return BudgetStart(problem, inst, rows, [x for _, x in found], reason)


class BudgetSearch(KernelRun):
    """Search by flips and exchanges within the budgets."""

    state: FlipState

    def __init__(
        self, start: BudgetStart, seed: np.random.SeedSequence, watch: Watch, incumbent: Incumbent
    ) -> None:
        self._set_up(
            start.problem, start.inst, start.rows, start.found[0], new_state(seed), watch, incumbent
        )
        self.record()

    @classmethod
    def at(
        cls,
        problem: BudgetQP,
        inst: Instance,
        rows: _Rows,
        x: npt.NDArray[np.int8],
        rng: npt.NDArray[np.uint64],
        watch: Watch,
        incumbent: Incumbent,
    ) -> BudgetSearch:
        """A search at any x, feasible or not."""
        search = cls.__new__(cls)
        search._set_up(problem, inst, rows, x, rng, watch, incumbent)
        return search

    def _set_up(
        self,
        problem: BudgetQP,
        inst: Instance,
        rows: _Rows,
        x: npt.NDArray[np.int8],
        rng: npt.NDArray[np.uint64],
        watch: Watch,
        incumbent: Incumbent,
    ) -> None:
        super().__init__(inst, rng, watch, incumbent)
        self.problem = problem
        self.rows = rows
        self.state = FlipState.at(inst, x)
        self.use = np.zeros(rows.AT.shape[1])
        budget_use(rows.AT, x, self.use)

    @property
    def _common(self) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any]:
        s, r = self.state, self.rows
        return (self.inst.J, r.AT, r.low, r.high, s.h, s.x, s.sign, self.use)

    def restart(self, x: npt.NDArray[np.int8]) -> None:
        """Begin again at a feasible x."""
        self.state.load(x)
        budget_use(self.rows.AT, x, self.use)

    def record(self) -> None:
        """Offer the present, feasible assignment, and make it this state's incumbent."""
        self.state.forget()
        x = self.state.x.copy()
        self.incumbent.offer(x, self.inst.energy(x))

    def repair(self) -> tuple[bool, str | None]:
        """Flip towards feasibility: (reached it, criterion that stopped it)."""
        s, r = self.state, self.rows
        reached = False

        def kernel(steps: int) -> bool:
            nonlocal reached
            reached = bool(
                budget_repair(
                    self.inst.J,
                    r.AT,
                    r.low,
                    r.high,
                    r.weight,
                    s.h,
                    s.x,
                    s.sign,
                    self.use,
                    s.free_at,
                    self.rng,
                    s.counters,
                    steps,
                )
            )
            return reached

        before = int(s.counters[STEP])
        reason = self._run(kernel, _REPAIR_STEPS * self.inst.n + 200, first=64)
        if int(s.counters[STEP]) == before and not reached:
            kernel(0)  # no step was due, or none allowed: it may be feasible as it is
        self.state.load(s.x.copy())
        budget_use(r.AT, s.x, self.use)
        return reached, reason

    def fill(self) -> str | None:
        """The best feasible flip until none improves."""
        s = self.state
        return self._run(
            lambda m: budget_flips(
                *self._common,
                s.counters,
                s.floats,
                s.best_x,
                m,
                s.floats[MARGIN],
                self.target,
            ),
            math.inf,
        )

    def descend(self) -> str | None:
        """Flips and exchanges until none improves."""
        s = self.state
        s.counters[IN_SWEEP] = 0
        s.counters[REFUSED] = 0
        return self._run(
            lambda m: budget_first(
                *self._common, s.counters, s.floats, s.best_x, m, s.floats[MARGIN],
                self.target,
            ),
            math.inf,
        )  # fmt: skip

    def anneal(self, start: float, end: float, sweeps: int) -> str | None:
        """Anneal from temperature ``start`` to ``end`` over ``sweeps`` of n proposals."""
        s = self.state
        s.floats[TEMPERATURE] = start
        s.counters[IN_SWEEP] = 0
        ratio = (end / start) ** (1.0 / max(1, sweeps - 1)) if start > 0 else 1.0
        J, AT, low, high, h, x, sign, use = self._common
        return self._run(
            lambda m: budget_metropolis(
                J, self.inst.a, AT, low, high, h, x, sign, use, self.rng, s.counters, s.floats,
                s.best_x, s.scratch, m, self.inst.n, ratio, self.refresh, self.target,
                self.patience,
            ),
            sweeps * self.inst.n,
        )  # fmt: skip

    def temperatures(self, hot: float, cold: float) -> tuple[float, float]:
        """Temperatures at which shares ``hot`` and ``cold`` of feasible moves are accepted here."""
        J, AT, low, high, h, _, sign, use = self._common
        out = np.zeros(1024)
        m = budget_sample(J, AT, low, high, h, sign, use, self.rng, out)
        return metropolis_temperature(out[:m], hot), metropolis_temperature(out[:m], cold)

    def scatter(self) -> bool:
        """Go to a random assignment, repaired; False, and back, if it could not be repaired."""
        back = self.state.x.copy()
        bits = [next_u64(self.rng) >> np.uint64(63) for _ in range(self.inst.n)]
        other = BudgetSearch.at(
            self.problem, self.inst, self.rows, np.array(bits, dtype=np.int8), self.rng,
            self.watch, self.incumbent,
        )  # fmt: skip
        feasible, _ = other.repair()
        feasible = feasible and self.problem.violation(other.state.x) == 0
        self.restart(other.state.x if feasible else back)
        return feasible

    def shake(self) -> None:
        """Random feasible moves, two for every variable, from where the search stands."""
        s = self.state
        s.floats[TEMPERATURE] = 1e300
        s.counters[IN_SWEEP] = 0
        J, AT, low, high, h, x, sign, use = self._common
        self._run(
            lambda m: budget_metropolis(
                J, self.inst.a, AT, low, high, h, x, sign, use, self.rng, s.counters, s.floats,
                s.best_x, s.scratch, m, self.inst.n, 1.0, self.refresh, self.target,
                self.patience,
            ),
            2 * self.inst.n,
        )  # fmt: skip

    def multi_descend(self, starts: int) -> str | None:
        """Descents from the start and then, in turn, from shaken and from random repaired ones.

        0 goes on until a criterion is met.
        """
        done = 0
        while True:
            reason = self.descend()
            done += 1
            if reason is not None or done == starts or self.inst.n == 0:
                return reason
            self.watch.restarts += 1
            if done % 2 or not self.scatter():
                self.shake()
