"""From a batch of problems to answers: construction, descent, annealing, descent, stop criteria."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from optiprune.problems import CardinalityQP

from .backend import wait_for
from .exchange import ExchangeSearch
from .flips import FlipSearch
from .layout import BLOCK, Item, stack
from .noise import table_index
from .search import Plan
from .temperature import Ladder, Temperatures

if TYPE_CHECKING:
    import torch

__all__ = ["BatchRun"]

# steps that may be under way on a device when the clock is looked at
_AHEAD = 16
# estimates of an energy differ from the truth by some rounding errors
_SLACK = 64.0


class _Stopped(Exception):
    """The clock or the user ends the run of the whole batch."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run has for one problem: x is None where nothing feasible was reached."""

    x: npt.NDArray[np.int8] | None
    reason: str


class BatchRun:
    """One batch, run once.

    All problems of the batch are under way from the beginning to the end, so they share the clock;
    every other criterion is met by each problem alone, at steps that depend on the problem alone:
    a problem that is done is held still while others go on.
    """

    def __init__(
        self,
        items: Sequence[Item],
        device: torch.device,
        temperatures: Temperatures,
        *,
        sparse: bool | None = None,
    ) -> None:
        self.items = items
        self.device = device
        self.temperatures = temperatures
        self.sparse = device.type == "cpu" if sparse is None else sparse
        self.limits = items[0].watch.limits
        count = len(items)
        self.moves = np.zeros(count, np.int64)
        self.accepted = np.zeros(count, np.int64)
        self.reasons: list[str | None] = [None] * count
        self.search: ExchangeSearch | FlipSearch | None = None
        self.answers: list[Answer | None] = [None] * count
        self._all_items = items
        self._final: dict[int, Answer] = {}  # by the items' index
        self._whole = False  # the search's rows are all of one shape, not being moved about
        self._seen = np.full(count, math.inf)  # best energy at the last look
        self._improved = np.zeros(count, np.int64)  # moves at that time
        self._refuted = np.full(count, math.inf)  # an estimate that did not meet the target
        self._reserve = 0.0
        self._steps = 0

    # the run ------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Run to the end or a criterion. Raises KeyboardInterrupt; `collect` works after it too."""
        import torch

        try:
            with torch.inference_mode():
                self._measure_reserve()
                self._tick()
                self._begin()
                self._anneal()
                self._polish()
        except _Stopped as stopped:
            reason = str(stopped)
            self.reasons = [r or reason for r in self.reasons]

    def collect(self, default: str) -> list[Answer]:
        """Each problem's best assignment; ``default`` is the reason where none is noted."""
        self._settle(range(len(self.items)), default)
        return [self._final[item.index] for item in self._all_items]

    def _settle(self, problems: Sequence[int], default: str) -> None:
        """Write down the answers of problems that are done."""
        accepted = self.accepted
        if self.search is not None and self._whole:
            self._harvest([b for b in problems if self.answers[b] is None])
            accepted = accepted + self.search.problem_accepted()
        for b in problems:
            item, found = self.items[b], self.answers[b]
            item.watch.moves = int(self.moves[b])
            item.watch.accepted = int(accepted[b])
            x = None if found is None else found.x
            self._final[item.index] = Answer(x, self.reasons[b] or default)

    def _drop_done(self) -> None:
        """Once most problems are done, go on with a smaller batch of the others."""
        assert self.search is not None
        going = [b for b, reason in enumerate(self.reasons) if reason is None]
        if not 0 < 2 * len(going) <= len(self.items):
            return
        self._settle([b for b, reason in enumerate(self.reasons) if reason], "")
        self._whole = False
        index = np.array(going)
        self.search.keep(index)
        self.items = [self.items[b] for b in going]
        self.reasons = [self.reasons[b] for b in going]
        self.answers = [self.answers[b] for b in going]
        for name in ("moves", "accepted", "_seen", "_improved", "_refuted"):
            setattr(self, name, getattr(self, name)[index])
        self.ladder.keep(index)
        self._whole = True

    def _measure_reserve(self) -> None:
        """The time that the answers' own evaluation will take is kept back from a limit."""
        if math.isfinite(self.limits.time_s):
            item = self.items[-1]
            before = item.watch.elapsed
            item.problem.energy(cheap_assignment(item.problem))
            each = 3.0 * (item.watch.elapsed - before) + 5e-5
            self._reserve = each * len(self.items)

    def _tick(self) -> None:
        watch = self.items[0].watch
        if watch.interrupted:
            raise _Stopped("interrupted")
        self._steps += 1
        if math.isfinite(self.limits.time_s):
            if self._steps % _AHEAD == 0:
                wait_for(self.device)
            if watch.elapsed + self._reserve >= self.limits.time_s:
                raise _Stopped("time")

    def _begin(self) -> None:
        kind = ExchangeSearch if self.items[0].shape.exchange else FlipSearch
        batch = stack(self.items)
        self._tick()
        search = kind(batch, self.device, self.sparse)
        for s in range(search.start()):
            self._tick()
            search.construct(s)
        search.begin()
        self.search, self._whole = search, True
        self._look()
        self._descend()
        self._whole = False
        search.keep_best_start()
        changes, tries = search.sample_moves()
        hot, cold = self.temperatures.choose(changes, tries, search.margin, batch.exponent)
        self.ladder = Ladder(hot, cold, batch.sweeps)
        self.accepted = search.problem_accepted()
        search.spread(batch.shape.replicas)
        search.accepted.zero_()
        self._whole = True

    # steps --------------------------------------------------------------------------------------

    @property
    def _live(self) -> npt.NDArray[np.bool_]:
        return np.array([r is None for r in self.reasons])

    def _allowed(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of ``wanted`` further steps of each problem, how many the iteration limit allows."""
        assert self.search is not None
        steps = np.where(self._live, wanted, 0)
        if math.isfinite(self.limits.iterations):
            left = int(self.limits.iterations) - self.moves
            steps = np.minimum(steps, np.maximum(left, 0) // self.search.replicas)
            for b in np.flatnonzero((steps < wanted) & self._live):
                self.reasons[b] = "iterations"
        return steps

    def _run(self, plan: Plan, steps: npt.NDArray[np.int64]) -> None:
        """Carry out a plan in which problem b makes its first ``steps[b]`` steps."""
        search = self.search
        assert search is not None
        import torch

        count = min(len(plan), int(steps.max(initial=0)))
        if (steps < count).any():
            active = np.arange(count)[:, None] < steps
            plan.active = torch.from_numpy(active).to(self.device)[:, search.problem]
        done = 0
        try:
            for s in range(count):
                self._tick()
                search.step(plan, s)
                done += 1
        finally:
            self.moves += np.minimum(steps, done) * search.replicas

    def _anneal(self) -> None:
        search = self.search
        assert search is not None
        t = 0
        while True:
            self._drop_done()
            movers = search.batch.movers
            left = np.where(self._live, search.batch.sweeps * movers - t, 0)
            if not (left > 0).any():
                return
            # a limit that is met is noted at the step at which it is met
            steps = self._allowed(np.clip(left, 0, BLOCK))
            a, b = search.random_plan(t, BLOCK)
            rungs = self.ladder.rungs(np.arange(t, t + BLOCK)[:, None] // movers)
            temperatures = search.to_device(rungs.astype(search.batch.shape.dtype))
            plan = Plan(
                search.slots_for(a, range(t, t + BLOCK)),
                table_index(b),
                temperatures[:, search.problem],
            )
            self._run(plan, steps)
            self._look()
            t += BLOCK

    def _polish(self) -> None:
        search = self.search
        assert search is not None
        if self._live.any():
            search.load_best(self._tick)
            self._descend()

    def _descend(self) -> None:
        """Sweeps at temperature 0, of each problem until a whole one leaves its best as it was.

        (The best replica is at a local optimum then; the others need not be.)
        """
        search = self.search
        assert search is not None
        going = self._live
        while going.any():
            before = search.problem_best()
            movers = search.batch.movers
            wanted = np.where(going, movers, 0)
            allowed = self._allowed(wanted)
            for t in range(0, int(allowed.max(initial=0)), BLOCK):
                steps = range(t, min(t + BLOCK, int(allowed.max())))
                plan = Plan(search.slots_for(None, steps))
                self._run(plan, np.clip(allowed - t, 0, len(steps)))
            self._look()
            going &= (search.problem_best() < before) & self._live

    # criteria -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Targets and patience, of each problem alone."""
        limits, search = self.limits, self.search
        assert search is not None
        if limits.target == -math.inf and limits.no_improvement == math.inf:
            return
        best = search.problem_best()
        better = best < self._seen
        self._improved[better] = self.moves[better]
        self._seen = np.minimum(self._seen, best)
        live = [b for b, reason in enumerate(self.reasons) if reason is None]
        if limits.target > -math.inf:
            scale = np.ldexp(1.0, search.batch.exponent)
            offset = np.array([i.problem.offset for i in self.items])
            slack = _SLACK * search.problem_margin()
            near = (best - slack) * scale + offset <= limits.target
            close = [b for b in live if near[b] and best[b] < self._refuted[b]]
            self._harvest(close)
            for b in close:
                found = self.answers[b]
                x = None if found is None else found.x
                if x is not None and self.items[b].problem.energy(x) <= limits.target:
                    self.reasons[b] = "target"
                else:
                    self.answers[b] = None
                    self._refuted[b] = best[b]
        for b in live:
            waited = self.moves[b] - self._improved[b] >= limits.no_improvement
            if waited and self.reasons[b] is None:
                self.reasons[b] = "no improvement"

    def _harvest(self, problems: Sequence[int]) -> None:
        """Note the best assignment of some problems, by their energies in float64."""
        if not len(problems):
            return
        assert self.search is not None
        states, estimates = self.search.harvest()
        slack = _SLACK * self.search.problem_margin()
        for b in problems:
            problem = self.items[b].problem
            keep = estimates[b] <= estimates[b].min() + slack[b]
            rows = states[b, keep, : problem.n].astype(np.int8)
            if (rows == rows[0]).all():
                rows = rows[:1]
            if isinstance(problem, CardinalityQP):
                # a run that was interrupted during construction has none yet
                rows = rows[[problem.violation(x) == 0 for x in rows]]
            if len(rows) > 1:
                rows = rows[[int(np.argmin(problem.energies(rows)))]]
            self.answers[b] = Answer(rows[0] if len(rows) else None, "")


def cheap_assignment(problem: object) -> npt.NDArray[np.int8]:
    """A feasible assignment at once: in each group the ones with the least cost of their own."""
    n: int = problem.n  # type: ignore[attr-defined]
    x = np.zeros(n, np.int8)
    if isinstance(problem, CardinalityQP):
        g = problem.groups
        order = np.lexsort((problem.linear + problem.diagonal(), g))
        sizes = np.bincount(g, minlength=problem.n_groups)
        rank = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        x[order[rank < problem.k[g[order]]]] = 1
    return x
