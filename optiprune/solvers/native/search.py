"""One face for the two kinds of search state, so that solvers say what to run and not how.

`ExchangeSearch` (fixed cardinality) and `FlipSearch` (no constraint) hold a state, its generator
and the incumbent, and turn chunks of kernel steps into offers to that incumbent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from optiprune.solvers.base import Watch
from optiprune.solvers.options import NEVER

from .chunks import Incumbent, run_chunks
from .exchange import (
    ACCEPTED,
    BEST,
    BEST_STEP,
    CLOCK,
    CURRENT,
    IN_SWEEP,
    MARGIN,
    REFUSED,
    RESTARTS,
    STEP,
    TEMPERATURE,
    ExchangeState,
    heat_bath,
    metropolis,
    refresh_interval,
)
from .exchange_tabu import TabuList, exchange_tabu
from .flip_tabu import FlipTabuList, flip_tabu
from .flips import FlipState, flip_descent, flip_first, flip_metropolis
from .instance import Instance
from .pairs import PairWorkspace, exchange_descent, exchange_first
from .rng import gumbel_table, new_state
from .start import Start

__all__ = ["ExchangeSearch", "FlipSearch", "KernelRun", "Search", "search_at"]


class KernelRun:
    """What every search has: a state, its generator, the limits as the kernels take them."""

    state: ExchangeState | FlipState

    def __init__(
        self, inst: Instance, rng: npt.NDArray[np.uint64], watch: Watch, incumbent: Incumbent
    ) -> None:
        self.inst = inst
        self.rng = rng
        self.watch = watch
        self.incumbent = incumbent
        limits = watch.limits
        self.target = limits.target - inst.offset
        self.patience = int(min(limits.no_improvement, NEVER))
        self.refresh = np.int64(refresh_interval(inst.n))

    def _run(
        self, kernel: Callable[[int], bool | None], total: float, *, first: int = 256
    ) -> str | None:
        """Run ``kernel(steps)``, which returns whether it came to its own end (None: it has none),
        for ``total`` steps or until a criterion is met."""
        watch, counters, floats = self.watch, self.state.counters, self.state.floats

        def advance(steps: int) -> tuple[int, bool]:
            before = int(counters[STEP])
            accepted = int(counters[ACCEPTED])
            restarts = int(counters[RESTARTS])
            best = floats[BEST]
            moves = watch.moves
            ended = bool(kernel(steps))
            done = int(counters[STEP]) - before
            watch.accepted += int(counters[ACCEPTED]) - accepted
            watch.restarts += int(counters[RESTARTS]) - restarts
            if floats[BEST] < best:
                # the kernel's energy has the drift of its fields: offer the true one, at the
                # step that found it
                watch.moves = moves + max(0, int(counters[BEST_STEP]) - before)
                best_x = self.state.best_x
                self.incumbent.offer(self.inst.outward(best_x), self.inst.energy(best_x))
            watch.moves = moves + done
            if not ended and floats[BEST] <= self.target and watch.best > watch.limits.target:
                self._refute()
            return done, ended

        return run_chunks(watch, self.incumbent, advance, total, first=first)

    def _refute(self) -> None:
        """The kernel stopped at a target that its rounding alone has met: let it go on."""
        floats, best_x = self.state.floats, self.state.best_x
        true = self.inst.energy(best_x) - self.inst.offset
        # just above the target where the rounding is that of the couplings themselves
        floats[BEST] = max(true, np.nextafter(self.target, np.inf))
        if np.array_equal(self.state.x, best_x):
            floats[CURRENT] = floats[BEST]


class Search(KernelRun, ABC):
    """A search state with its generator; every method can be cut short by the watch's limits."""

    @property
    @abstractmethod
    def sweep(self) -> int:
        """Proposals in one sweep."""

    @abstractmethod
    def _descend(self, steps: int) -> bool: ...

    @abstractmethod
    def _descend_first(self, steps: int) -> bool: ...

    @abstractmethod
    def _anneal(self, steps: int, ratio: float) -> None: ...

    @abstractmethod
    def _tabu(
        self, steps: int, tenure: int, spread: int, stall: int, weakest: int, strongest: int,
        rows: int = NEVER, settled: int = 0,
    ) -> bool: ...  # fmt: skip

    def restart(self, x: npt.NDArray[np.int8]) -> None:
        """Begin again at x (in the order of the kernels)."""
        self.state.load(x)

    def begin_again(self, x: npt.NDArray[np.int8]) -> None:
        """Begin again at x as if nothing better were known; the incumbent of the solve stays."""
        self.state.floats[BEST] = np.inf
        self.restart(x)

    def descend(self, strategy: Literal["best", "first"] = "best") -> str | None:
        """Descend from where the search stands to a local optimum, steepest or first move first."""
        self.state.counters[IN_SWEEP] = 0
        self.state.counters[REFUSED] = 0
        return self._run(self._descend if strategy == "best" else self._descend_first, math.inf)

    def anneal(self, start: float, end: float, sweeps: int) -> str | None:
        """Anneal from temperature ``start`` to ``end``, geometrically over ``sweeps``."""
        self.state.floats[TEMPERATURE] = start
        self.state.counters[IN_SWEEP] = 0
        ratio = (end / start) ** (1.0 / max(1, sweeps - 1)) if start > 0 else 1.0
        return self._run(lambda m: self._anneal(m, ratio), sweeps * self.sweep)

    def tabu(
        self,
        steps: float,
        *,
        tenure: int,
        spread: int,
        stall: int,
        weakest: int,
        strongest: int,
        rows: int = NEVER,
        settled: int = 0,
    ) -> str | None:
        """Tabu search for that many steps; see the kernels for the parameters."""
        # some milliseconds at most
        work = 4000 + self.inst.n * (16 + min(rows, self.sweep))
        return self._run(
            lambda m: self._tabu(m, tenure, spread, stall, weakest, strongest, rows, settled),
            steps,
            first=max(32, 30_000_000 // work),
        )


class ExchangeSearch(Search):
    """Search by exchanges at fixed cardinality."""

    state: ExchangeState

    def __init__(
        self,
        start: Start,
        rng: npt.NDArray[np.uint64],
        watch: Watch,
        incumbent: Incumbent,
        moves: Literal["heat-bath", "metropolis"] = "heat-bath",
    ) -> None:
        super().__init__(start.inst, rng, watch, incumbent)
        self.state = ExchangeState.at(start.inst, start.x)
        self.moves = moves
        self._pairs: PairWorkspace | None = None
        self._list: TabuList | None = None

    @property
    def pairs(self) -> PairWorkspace:
        if self._pairs is None:
            self._pairs = PairWorkspace(self.inst)
        return self._pairs

    @property
    def sweep(self) -> int:
        return len(self.state.pruned)

    def restart(self, x: npt.NDArray[np.int8]) -> None:
        super().restart(x)
        self._list = None

    def descend(self, strategy: Literal["best", "first"] = "best") -> str | None:
        reason = super().descend(strategy)
        # the descents leave the list of kept variables behind; this also sheds their rounding
        self.state.load(self.state.x.copy())
        return reason

    def _anneal(self, steps: int, ratio: float) -> None:
        s, inst = self.state, self.inst
        if self.moves == "heat-bath":
            # slices of J's width at most, by powers of two: tables are kept
            table = gumbel_table(1 << (inst.J.shape[1] - 1).bit_length(), inst.J.itemsize == 8)
            heat_bath(
                inst.J, inst.a, s.wide, s.x, s.wide_mask, s.pruned, s.pruned_group, s.spans,
                table, self.rng, s.counters, s.floats, s.best_x, s.scratch, steps,
                self.sweep, ratio, self.refresh, self.target, self.patience,
            )  # fmt: skip
        else:
            metropolis(
                inst.J, inst.a, s.h, s.x, s.mask, s.pruned, s.pruned_group, s.kept,
                s.kept_starts, self.rng, s.counters, s.floats, s.best_x, s.scratch, steps,
                self.sweep, ratio, self.refresh, self.target, self.patience,
            )  # fmt: skip

    def _descend(self, steps: int) -> bool:
        s, inst, w = self.state, self.inst, self.pairs
        w.free_at[:] = 0
        done = exchange_descent(
            inst.J, s.h, s.x, s.mask, s.pruned, s.pruned_group, inst.starts, w.maxima, w.free_at,
            w.leave, w.tops, s.counters, s.floats, s.best_x, steps, s.floats[MARGIN],
            self.target,
        )  # fmt: skip
        return bool(done)

    def _descend_first(self, steps: int) -> bool:
        s, inst = self.state, self.inst
        done = exchange_first(
            inst.J, s.h, s.x, s.mask, s.pruned, s.pruned_group, inst.starts, s.counters, s.floats,
            s.best_x, steps, s.floats[MARGIN], self.target,
        )  # fmt: skip
        return bool(done)

    def _tabu(
        self, steps: int, tenure: int, spread: int, stall: int, weakest: int, strongest: int,
        rows: int = NEVER, settled: int = 0,
    ) -> bool:  # fmt: skip
        s, inst = self.state, self.inst
        if self._list is None:
            self._list = TabuList(s)
        w = self._list
        ended = exchange_tabu(
            inst.J, inst.a, s.wide, s.x, s.wide_mask, s.pruned, s.pruned_group, s.kept,
            s.kept_starts, inst.starts, s.spans, w.leave, w.leave_at, w.enter_at, self.rng,
            s.counters, s.floats, s.best_x, s.scratch, steps, rows, tenure, spread, stall, weakest,
            strongest, settled, self.refresh, self.target, self.patience,
        )  # fmt: skip
        return bool(ended)


class FlipSearch(Search):
    """Search by flips, without constraints."""

    state: FlipState

    def __init__(
        self, start: Start, rng: npt.NDArray[np.uint64], watch: Watch, incumbent: Incumbent
    ) -> None:
        super().__init__(start.inst, rng, watch, incumbent)
        self.state = FlipState.at(start.inst, start.x)
        self._list: FlipTabuList | None = None

    def restart(self, x: npt.NDArray[np.int8]) -> None:
        super().restart(x)
        self._list = None

    @property
    def sweep(self) -> int:
        return self.inst.n

    def _anneal(self, steps: int, ratio: float) -> None:
        s, inst = self.state, self.inst
        flip_metropolis(
            inst.J, inst.a, s.h, s.x, s.sign, self.rng, s.counters, s.floats, s.best_x, s.scratch,
            steps, ratio, self.refresh, self.target, self.patience,
        )  # fmt: skip

    def _descend(self, steps: int) -> bool:
        s, inst = self.state, self.inst
        done = flip_descent(
            inst.J, s.h, s.x, s.sign, s.counters, s.floats, s.best_x, steps,
            s.floats[MARGIN], self.target,
        )  # fmt: skip
        return bool(done)

    def _descend_first(self, steps: int) -> bool:
        s, inst = self.state, self.inst
        done = flip_first(
            inst.J, s.h, s.x, s.sign, s.counters, s.floats, s.best_x, steps,
            s.floats[MARGIN], self.target,
        )  # fmt: skip
        return bool(done)

    def _tabu(
        self, steps: int, tenure: int, spread: int, stall: int, weakest: int, strongest: int,
        rows: int = NEVER, settled: int = 0,
    ) -> bool:  # fmt: skip
        s, inst = self.state, self.inst
        if self._list is None or self._list.longest <= tenure + spread:
            self._list = FlipTabuList(s, tenure + spread + 1)
            s.counters[CLOCK] = 0
        w = self._list
        flip_tabu(
            inst.J, inst.a, s.h, s.x, s.sign, w.gate, w.free_at, w.head, w.after, w.tops, self.rng,
            s.counters, s.floats, s.best_x, s.scratch, steps, tenure, spread, stall, weakest,
            strongest, self.refresh, self.target, self.patience,
        )  # fmt: skip
        return False


def search_at(
    start: Start,
    seed: np.random.SeedSequence,
    watch: Watch,
    incumbent: Incumbent,
    moves: Literal["heat-bath", "metropolis"] = "heat-bath",
) -> ExchangeSearch | FlipSearch | None:
    """The search that fits a problem, or None where nothing can move."""
    rng = new_state(seed)
    if len(start.inst.k) == 0:
        return FlipSearch(start, rng, watch, incumbent) if start.inst.n else None
    search = ExchangeSearch(start, rng, watch, incumbent, moves)
    return search if search.state.can_move else None
