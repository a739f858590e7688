"""Best-subset search for an MIQP: which weights to keep when those kept are re-fitted."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP
from optiprune.solvers.base import Watch

from .chunks import Incumbent, run_chunks
from .exchange import (
    ACCEPTED,
    BEST,
    BEST_STEP,
    CURRENT,
    MARGIN,
    RESTARTS,
    RUN_BEST,
    STEP,
)
from .instance import OutOfTime
from .rng import new_state
from .support_tabu import support_tabu
from .tableau import Tableau

__all__ = ["SupportSearch"]

# exchanges tried by their true energy in one step while a bound on the weights may be active
_TRIED = 16
# above this, a time limit is looked at while a tableau is being built
_LARGE = 512
# what enters in tabu search is so many times further from collinear than it has to be
_WELL_APART = 1e3
# exchanges between two rebuilds of a tableau, at least
_REFRESH = 200
# steps of the first chunk of tabu search: some 100 microseconds
_FIRST_STEPS = 32

_Bits = npt.NDArray[np.int8]


class SupportSearch:
    """Greedy and exchange search over supports of size k, priced exactly by a `Tableau`.

    The marginal costs ignore the bounds M. Where those are finite, candidates are ordered by
    their unbounded price and taken by their true energy.
    """

    def __init__(
        self, problem: MIQP, seed: np.random.SeedSequence, watch: Watch, incumbent: Incumbent
    ) -> None:
        self.problem = problem
        self.watch = watch
        self.incumbent = incumbent
        self.generator = np.random.default_rng(seed)
        self.seed = seed
        self.bounded = bool(np.isfinite(problem.M).any())
        self._tableau: Tableau | None = None

    @property
    def tableau(self) -> Tableau:
        """Built when first needed: O(n^2), after there is an incumbent."""
        if self._tableau is None:
            self._tableau = Tableau(
                np.ascontiguousarray(self.problem.dense(), dtype=np.float64),
                np.asarray(self.problem.b, dtype=np.float64),
            )
        return self._tableau

    def first(self, x0: _Bits | None) -> None:
        """Give the incumbent x0 if it is feasible, else the k largest of ``b_i^2 / (2 H_ii)``."""
        p = self.problem
        if x0 is None or p.violation(x0) > 0:
            h = p.H
            d = np.asarray(h.diag() if not isinstance(h, np.ndarray) else h.diagonal())
            score = np.where(d > 0, p.b**2 / np.where(d > 0, d, 1.0), 0.0)
            x0 = np.zeros(p.n, np.int8)
            x0[np.argsort(-score, kind="stable")[: p.k]] = 1
        self.incumbent.measure(x0)
        # the answer's energy and weights are computed three times over after the search
        self.incumbent.reserve_s *= 2.5

    def run(self, x0: _Bits | None, starts: int) -> str | None:
        """Descend from x0 (repaired if its size is wrong) or greedy, then from random supports."""
        self.first(x0)
        reason = self.incumbent.reason_to_stop()
        if reason is not None:
            return reason
        n, k = self.problem.n, self.problem.k
        x = self.start(x0)
        done = 0
        while True:
            reason = self.descend(x)
            done += 1
            if reason is not None or done == starts or k in (0, n):
                return reason
            self.watch.restarts += 1
            x = np.zeros(n, np.int8)
            x[self.generator.permutation(n)[:k]] = 1

    def start(self, x0: _Bits | None) -> _Bits:
        """x0 with its size repaired or, without one, the better of two greedy supports."""
        return self.greedy("both") if x0 is None else self.repair(x0)

    def tabu(
        self,
        x: _Bits,
        steps: float,
        *,
        rows: int,
        tenure: int,
        spread: int,
        stall: int,
        weakest: int,
        strongest: int,
        settled: int,
    ) -> str | None:
        """`support_tabu` from x, whose members' weights have no bounds."""
        settled_x = self._independent(x)
        if settled_x is None:
            return None
        x, problem, t = settled_x, self.problem, self.tableau
        n = problem.n
        counters = np.zeros(16, np.int64)
        floats = np.zeros(8)
        floats[[CURRENT, BEST, RUN_BEST]] = 0.5 * t.T[n, n]
        floats[MARGIN] = 1e-12 * (1.0 + abs(float(t.T[n, n])))
        best_x = x.copy()
        until = np.full(n, -1, np.int64)
        vectors = np.empty((4, n))
        rng = new_state(self.seed)
        target = self.watch.limits.target - problem.offset
        floor = _WELL_APART * t.floor
        refresh = max(_REFRESH, 4 * problem.k)

        def advance(ask: int) -> tuple[int, bool]:
            before = counters.copy()
            ended = support_tabu(
                t.T, t.H, t.b, floor, t.inside, until, best_x, rng, counters, floats, vectors,
                ask, rows, tenure, spread, stall, weakest, strongest, settled, refresh, target,
            )  # fmt: skip
            did = counters - before
            self.watch.moves += int(did[STEP])
            self.watch.accepted += int(did[ACCEPTED])
            self.watch.restarts += int(did[RESTARTS])
            if counters[BEST_STEP] != before[BEST_STEP]:
                self.incumbent.offer(best_x.copy(), float(floats[BEST]) + problem.offset)
            return int(did[STEP]), bool(ended)

        return run_chunks(self.watch, self.incumbent, advance, steps, first=_FIRST_STEPS)

    def _independent(self, x: _Bits) -> _Bits | None:
        """x loaded, with every collinear member exchanged for one that gains; None if none does.

        Then x keeps as much as keeping everything would.
        """
        x = x.copy()
        self._load(x)
        t = self.tableau
        tolerance = 1e-12 * (1.0 + abs(t.energy()))
        while True:
            idle = np.flatnonzero((x == 1) & ~t.inside)
            if len(idle) == 0:
                break
            self._check()
            gain = np.where(x == 0, t.gains(), 0.0)
            q = int(np.argmax(gain))
            if not gain[q] > tolerance:
                self.incumbent.measure(x)
                return None
            x[idle[0]], x[q] = 0, 1
            t.enter(q)
        self.incumbent.measure(x)
        return x

    def _check(self) -> None:
        if self.incumbent.reason_to_stop() == "time":
            raise OutOfTime

    def _load(self, x: _Bits) -> None:
        watched = math.isfinite(self.watch.limits.time_s) and self.problem.n > _LARGE
        self.tableau.load(np.flatnonzero(x), self._check if watched else None)

    def repair(self, x: _Bits) -> _Bits:
        """x with members dropped or added by least marginal cost until there are k."""
        x = x.copy()
        self._load(x)
        t = self.tableau
        while int(x.sum()) > self.problem.k:
            self._check()
            cost = np.where(x == 1, t.removal_costs(), np.inf)
            p = int(np.argmin(cost))
            x[p] = 0
            if t.inside[p]:
                t.leave(p)
            self.watch.moves += 1
        while int(x.sum()) < self.problem.k:
            self._check()
            gain = np.where(x == 0, t.gains(), -np.inf)
            q = int(np.argmax(gain))
            x[q] = 1
            if t.can_enter(q):
                t.enter(q)
            self.watch.moves += 1
        return x

    def greedy(self, direction: Literal["both", "forward", "backward"]) -> _Bits:
        """Forward selection from nothing, backward elimination from everything, or the better."""
        found: list[tuple[float, _Bits]] = []
        for forward in (True, False):
            if direction != "both" and forward != (direction == "forward"):
                continue
            x = self.repair(np.full(self.problem.n, 0 if forward else 1, np.int8))
            energy = self.problem.energy(x)
            self.incumbent.offer(x.copy(), energy)
            found.append((energy, x))
        return min(found, key=lambda pair: pair[0])[1]

    def descend(self, x: _Bits) -> str | None:
        """The best exchange until none improves; the incumbent gets every step."""
        x = x.copy()
        self._load(x)
        energy = self.problem.energy(x)
        self.incumbent.offer(x.copy(), energy)
        while True:
            reason = self.incumbent.reason_to_stop()
            if reason is not None:
                return reason
            self.watch.moves += 1
            found = self._step(x, energy)
            if found is None:
                return None
            out, into, energy = found
            x[out], x[into] = 0, 1
            t = self.tableau
            if t.inside[out]:
                t.leave(out)
            # a collinear member may have become independent by that
            for i in (into, *np.flatnonzero((x == 1) & ~t.inside)):
                if not t.inside[i] and t.can_enter(int(i)):
                    t.enter(int(i))
            self.watch.accepted += 1
            self.incumbent.offer(x.copy(), energy)

    def _step(self, x: _Bits, energy: float) -> tuple[int, int, float] | None:
        """The best exchange (out, into, energy after it), or None in a local optimum."""
        t = self.tableau
        tolerance = 1e-12 * (1.0 + abs(energy - self.problem.offset))
        free = np.flatnonzero(x == 0)
        if len(free) == 0:
            return None
        idle = np.flatnonzero((x == 1) & ~t.inside)
        if len(idle):
            # a collinear member carries nothing: exchanging it costs nothing, and if no variable
            # outside gains anything then the support is as good as keeping everything
            price = -t.gains()[free][None, :]
            out = idle[:1]
        else:
            out = np.flatnonzero(t.inside)
            if len(out) == 0:
                return None
            price = t.exchange_deltas(out, free)
        if not self.bounded:
            at = int(np.argmin(price))
            p, q = divmod(at, len(free))
            if not price[p, q] < -tolerance:
                return None
            return int(out[p]), int(free[q]), energy + float(price[p, q])
        flat = price.ravel()
        few = np.argpartition(flat, min(_TRIED, flat.size) - 1)[:_TRIED]
        for at in few[np.argsort(flat[few], kind="stable")]:
            if not np.isfinite(flat[at]):
                break
            p, q = divmod(int(at), len(free))
            y = x.copy()
            y[out[p]], y[free[q]] = 0, 1
            e = self.problem.energy(y)
            if e < energy - tolerance:
                return int(out[p]), int(free[q]), e
        return None
