"""Running a resumable kernel in short chunks, with the clock looked at in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from optiprune.problems import Problem
from optiprune.solvers.base import Outcome, Watch
from optiprune.solvers.result import Status

from .instance import OutOfTime

__all__ = ["Incumbent", "run_chunks"]

# seconds a chunk aims at: far below the 50 ms that a time limit may be overrun by
_AIM_S = 0.004
# steps of the first chunk, and how fast chunks may grow
_FIRST = 256
_GROWTH = 8


class Incumbent:
    """The best feasible assignment of one solve, in the problem's order, with its energy.

    Holds something as soon as anything feasible is known, so that an interrupt or a time limit
    finds an answer at any moment. ``reserve_s`` is time that the caller's last step (energy and
    feasibility in float64) will need, kept back from the limit.
    """

    __slots__ = ("_problem", "_watch", "cut_short", "energy", "reserve_s", "x")

    def __init__(self, problem: Problem, watch: Watch) -> None:
        self._problem = problem
        self._watch = watch
        self.x: npt.NDArray[np.int8] | None = None
        self.energy = math.inf
        self.reserve_s = 0.0
        self.cut_short: str | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A search that `OutOfTime` or Ctrl-C ends, with what there is; `cut_short` says which.

        Raises
        ------
        KeyboardInterrupt
            While there is nothing.
        """
        try:
            yield
        except OutOfTime:
            self.cut_short = "time"
        except KeyboardInterrupt:
            if self.x is None:
                raise
            self.cut_short = "interrupted"

    def measure(self, x: npt.NDArray[np.int8]) -> None:
        """Offer a feasible x by its true energy, and learn what that evaluation costs."""
        t = time.perf_counter()
        energy = self._problem.energy(x)
        self.reserve_s = max(self.reserve_s, 1.5 * (time.perf_counter() - t))
        self.offer(x, energy)

    def offer(self, x: npt.NDArray[np.int8], energy: float) -> bool:
        """Take a feasible x (not copied) if its energy is better; whether it was taken.

        ``energy`` may have the rounding of a kernel's couplings; one that would meet the target is
        evaluated again, since a target is met by the problem's own energy alone.
        """
        if self.x is not None and not energy < self.energy:
            return False
        if energy <= self._watch.limits.target:
            energy = self._problem.energy(x)
            if self.x is not None and not energy < self.energy:
                return False
        self.x, self.energy = x, energy
        self._watch.offer(energy)
        return True

    def reason_to_stop(self) -> str | None:
        reason = self._watch.reason_to_stop()
        if reason is None and self._watch.elapsed + self.reserve_s >= self._watch.limits.time_s:
            return "time"
        return reason

    def outcome(self, reason: str | None, message: str = "", **extra: object) -> Outcome:
        """FEASIBLE with the incumbent, NO_INCUMBENT without; no reason is completion."""
        status = Status.NO_INCUMBENT if self.x is None else Status.FEASIBLE
        reason = self.cut_short or reason or "completed"
        return Outcome(self.x, status, self._watch.stats(reason, message, **extra))


def run_chunks(
    watch: Watch,
    incumbent: Incumbent,
    advance: Callable[[int], tuple[int, bool]],
    total: float = math.inf,
    *,
    first: int = _FIRST,
) -> str | None:
    """Call ``advance(steps)`` until ``total`` steps are done or a criterion is met.

    ``advance`` carries out at most that many steps, adds them to ``watch.moves``, offers its
    incumbents and returns how many it did and whether it has come to its own end. (It may do fewer
    for a reason of its own and be called again.) Results must not depend on how the steps are cut,
    since chunks are sized by the clock.

    Returns the criterion that stopped it, or None when the steps were done.
    """
    done = 0
    chunk = first
    while True:
        reason = incumbent.reason_to_stop()
        if reason is not None:
            return reason
        patience = watch.limits.no_improvement - (watch.moves - watch.last_improvement)
        ask = int(min(chunk, total - done, watch.limits.iterations - watch.moves, patience))
        if ask <= 0:
            return None
        t = time.perf_counter()
        did, ended = advance(ask)
        spent = time.perf_counter() - t
        done += did
        if ended:
            return incumbent.reason_to_stop()
        # never more than the time left, by the pace of this chunk
        aim = min(_AIM_S, max(0.0, watch.time_left - incumbent.reserve_s))
        fit = chunk * _GROWTH if spent <= 0 else int(max(did, 1) * aim / spent)
        chunk = max(1, min(fit, chunk * _GROWTH))
