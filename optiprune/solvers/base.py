"""The solver protocol, and the base class that keeps every solver's promises in one place."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    Problem,
    as_binary,
)

from .errors import UnsupportedProblemError
from .many import in_parts, solve_each
from .result import Solution, SolveStats, Status
from .stop import Limits, Stop, limits

__all__ = ["BaseSolver", "Capabilities", "Outcome", "Solver", "Watch", "as_seed"]

# what to do with a problem type that a solver does not take
_REMEDY = {
    QUBO: "every solver that takes QUBO works",
    CardinalityQP: "turn it into a QUBO with optiprune.problems.to_penalty_qubo",
    BudgetQP: (
        "use 'highs', 'pyomo' or 'exhaustive', or a QUBO by optiprune.problems.to_penalty_qubo"
    ),
    MIQP: "use 'tabu', 'local-search', 'exact' or 'pyomo' with a MIQP back end such as scip",
}


# by how much of 1 + |energy| an energy may pass a claim about it
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a solver can do, declared, so that nothing has to be found out by failing.

    Attributes
    ----------
    problems : problem types it takes (exact types, not subclasses)
    exact : whether it proves optimality when it runs to the end
    max_n : largest number of variables it accepts, or None
    keeps_time_limit : whether it keeps a time limit within 10 % + 50 ms
    """

    problems: frozenset[type]
    exact: bool = False
    max_n: int | None = None
    keeps_time_limit: bool = True


@runtime_checkable
class Solver(Protocol):
    """Anything with these members can be used wherever a solver is named."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def solve(
        self,
        problem: Problem,
        *,
        x0: npt.ArrayLike | None = None,
        seed: int | np.random.SeedSequence = 0,
        stop: Stop | None = None,
    ) -> Solution: ...

    def solve_many(
        self,
        problems: Sequence[Problem],
        *,
        x0s: Sequence[npt.ArrayLike | None] | None = None,
        seed: int | np.random.SeedSequence = 0,
        stop: Stop | None = None,
        workers: int = 1,
    ) -> list[Solution]: ...


@dataclass(slots=True)
class Watch:
    """The clock, the limits and the incumbent's history of one solve.

    A solver's Python loop runs its kernel in chunks, tells the watch of new incumbents with
    `offer`, and asks `reason_to_stop` between chunks.
    """

    limits: Limits
    start: float = field(default_factory=time.perf_counter)
    moves: int = 0
    accepted: int = 0
    restarts: int = 0
    best: float = math.inf
    last_improvement: int = 0
    trajectory: list[tuple[float, float]] = field(default_factory=list)
    # set from another thread to end the solve; shared by all solves of a `solve_many`
    interrupt: threading.Event | None = None

    @property
    def interrupted(self) -> bool:
        return self.interrupt is not None and self.interrupt.is_set()

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    @property
    def time_left(self) -> float:
        return self.limits.time_s - self.elapsed

    def offer(self, energy: float) -> bool:
        """Record an incumbent if it is better than the last; whether it was."""
        energy = float(energy)  # of NumPy's types, float32 is none that JSON can hold
        if not energy < self.best:
            return False
        self.best = energy
        self.last_improvement = self.moves
        self.trajectory.append((self.elapsed, energy))
        return True

    def reason_to_stop(self) -> str | None:
        """The first criterion that is met, or None."""
        if self.best <= self.limits.target:
            return "target"
        if self.interrupted:
            return "interrupted"
        if self.elapsed >= self.limits.time_s:
            return "time"
        if self.moves >= self.limits.iterations:
            return "iterations"
        if self.moves - self.last_improvement >= self.limits.no_improvement:
            return "no improvement"
        return None

    def stats(self, stop_reason: str, message: str = "", **extra: Any) -> SolveStats:
        return SolveStats(
            solver="",  # filled in by BaseSolver.solve
            wall_s=self.elapsed,
            moves=self.moves,
            accepted=self.accepted,
            restarts=self.restarts,
            stop_reason=stop_reason,
            trajectory=tuple(self.trajectory),
            message=message,
            extra=extra,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A back end's raw answer, before energy and feasibility are recomputed."""

    x: npt.ArrayLike | None
    status: Status
    stats: SolveStats
    bound: float | None = None


def as_seed(seed: int | np.random.SeedSequence) -> np.random.SeedSequence:
    """A SeedSequence from an int >= 0, or the one given."""
    if isinstance(seed, np.random.SeedSequence):
        # a copy with no children: spawning from it is the same however often it is reused
        return np.random.SeedSequence(
            entropy=seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size
        )
    if isinstance(seed, bool) or int(seed) != seed or seed < 0:
        raise ValueError(f"seed must be an integer >= 0 or a numpy SeedSequence, got {seed!r}")
    return np.random.SeedSequence(int(seed))


@dataclass(frozen=True)
class BaseSolver(ABC):
    """Shared promises: the problem is supported, x0 is valid, the energy is recomputed in float64,
    a feasible x0 is never made worse, the status is never upgraded.

    A subclass is a frozen dataclass whose fields are its hyperparameters; it defines `name`,
    `capabilities` and `_solve`.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def solve(
        self,
        problem: Problem,
        *,
        x0: npt.ArrayLike | None = None,
        seed: int | np.random.SeedSequence = 0,
        stop: Stop | None = None,
    ) -> Solution:
        """Minimise a problem.

        Parameters
        ----------
        problem : one of the types in ``capabilities.problems``
        x0 : (n,) 0/1 array-like, optional
            Warm start. If it is feasible, the answer is at least as good.
        seed : int >= 0 or SeedSequence
            The same seed, problem and hyperparameters give the same answer, unless a time limit
            cut the run short.
        stop : `Stop`, optional
            Criteria beside the solver's own schedule.

        Raises
        ------
        UnsupportedProblemError
            If the problem's type or size is not supported; the message names a way out.
        ProblemError
            If x0 has a wrong shape or holds anything but 0 and 1.
        """
        return self._run(problem, x0, as_seed(seed), Watch(limits(stop)))

    def solve_many(
        self,
        problems: Sequence[Problem],
        *,
        x0s: Sequence[npt.ArrayLike | None] | None = None,
        seed: int | np.random.SeedSequence = 0,
        stop: Stop | None = None,
        workers: int = 1,
    ) -> list[Solution]:
        """Solve each problem by itself, in ``workers`` threads; ``stop`` holds for each problem.

        Problem i is seeded with the i-th child of ``seed``, so the answers do not depend on
        ``workers``. Without ``stop``, small problems of one size may be solved in one call, with
        the same answers; ``stats.wall_s`` is then that of the call, and there is no trajectory.
        After Ctrl-C the list is complete all the same: incumbents of the problems
        under way, and of those not begun the start, or NO_INCUMBENT without a feasible one; their
        ``stats.stop_reason`` is "interrupted". A second Ctrl-C is raised.

        Raises
        ------
        ValueError
            If ``x0s`` has another length or workers < 1; else as `solve`.
        """
        starts = [None] * len(problems) if x0s is None else list(x0s)
        if len(starts) != len(problems):
            raise ValueError(f"{len(problems)} problems but {len(starts)} starts")
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        seeds = as_seed(seed).spawn(len(problems))

        interrupt = threading.Event()

        limit = limits(stop)
        for problem in problems:
            self.require_support(problem)
        keys = [self._alike(p) if limit.unlimited else None for p in problems]
        parts = in_parts(keys)

        def solve(part: int) -> list[Solution]:
            at = parts[part]
            if len(at) > 1 and not interrupt.is_set():
                some = [problems[i] for i in at]
                begin = [starts[i] for i in at]
                found = self._run_alike(some, begin, [seeds[i] for i in at])
                if found is not None:
                    return found
            one_by_one = []
            for i in at:
                watch = Watch(limit, interrupt=interrupt)
                one_by_one.append(self._run(problems[i], starts[i], seeds[i], watch))
                if one_by_one[-1].stats.stop_reason == "interrupted":
                    interrupt.set()
            return one_by_one

        answers = dict[int, Solution]()
        for at, found in zip(parts, solve_each(solve, len(parts), workers, interrupt), strict=True):
            answers.update(zip(at, found, strict=True))
        return [answers[i] for i in range(len(problems))]

    def _run_alike(
        self,
        problems: Sequence[Problem],
        x0s: Sequence[npt.ArrayLike | None],
        seeds: Sequence[np.random.SeedSequence],
    ) -> list[Solution] | None:
        watches = [Watch(Limits()) for _ in problems]
        starts = [
            None if x0 is None else as_binary(x0, p.n) for p, x0 in zip(problems, x0s, strict=True)
        ]
        outcomes = self._solve_alike(problems, starts, seeds)
        if outcomes is None:
            return None
        return [self._finish(*one) for one in zip(problems, starts, watches, outcomes, strict=True)]

    def _alike(self, problem: Problem) -> Hashable:
        """Problems of one key may be handed to `_solve_alike`; None: each is solved by itself."""
        return None

    def _solve_alike(
        self,
        problems: Sequence[Any],
        x0s: Sequence[npt.NDArray[np.int8] | None],
        seeds: Sequence[np.random.SeedSequence],
    ) -> list[Outcome] | None:
        """What `_solve` would answer to each, without limits; None where it has to be asked."""
        return None

    def _run(
        self,
        problem: Problem,
        x0: npt.ArrayLike | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Solution:
        self.require_support(problem)
        start = None if x0 is None else as_binary(x0, problem.n)
        if watch.interrupted:
            outcome = _unanswered(watch)
        else:
            try:
                outcome = self._solve(problem, start, seed, watch)
            except KeyboardInterrupt:
                if start is None or problem.violation(start) > 0:
                    raise
                outcome = _unanswered(watch)
        return self._finish(problem, start, watch, outcome)

    def require_support(self, problem: Problem) -> None:
        """Raise `UnsupportedProblemError` unless this solver takes the problem."""
        caps = self.capabilities
        if type(problem) not in caps.problems:
            known = ", ".join(sorted(t.__name__ for t in caps.problems))
            hint = _REMEDY.get(type(problem), "see optiprune.problems for the known types")
            raise UnsupportedProblemError(
                f"solver '{self.name}' does not take {type(problem).__name__} "
                f"(it takes {known}); {hint}"
            )
        if caps.max_n is not None and problem.n > caps.max_n:
            raise UnsupportedProblemError(
                f"solver '{self.name}' takes at most {caps.max_n} variables, got {problem.n}; "
                "fix variables (optiprune.problems.fix_variables), restrict to a batch "
                "(optiprune.problems.restrict), or use 'annealing' or 'tabu'"
            )

    @abstractmethod
    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        """Run the back end; return its incumbent also when the user interrupts."""

    def _finish(
        self, problem: Problem, x0: npt.NDArray[np.int8] | None, watch: Watch, outcome: Outcome
    ) -> Solution:
        x, status, bound = outcome.x, outcome.status, outcome.bound
        message = outcome.stats.message
        energy = math.inf
        if status.has_solution:
            if x is None:
                raise AssertionError(f"solver '{self.name}' claims {status} without a solution")
            x = as_binary(x, problem.n)
            if problem.violation(x) > 0:
                status, x = Status.NO_INCUMBENT, None
                message = _join(message, "the back end's answer was infeasible and was dropped")
            else:
                energy = problem.energy(x)
        else:
            x = None
        if x0 is not None and problem.violation(x0) == 0:
            e0 = problem.energy(x0)
            if x is None or e0 < energy:
                if status is Status.OPTIMAL and e0 < energy - _ROUNDING * (1.0 + abs(energy)):
                    message = _join(message, "a claim of optimality was refuted by x0")
                    status, bound = Status.FEASIBLE, None
                elif status is not Status.OPTIMAL:
                    status = Status.FEASIBLE
                x, energy = x0.copy(), e0
        if bound is not None and not bound <= energy + _ROUNDING * (1.0 + abs(energy)):
            # what bounds the energy wrongly, or not at all (NaN), proves nothing
            message = _join(message, f"the claimed bound {bound!r} was above the energy; dropped")
            bound = None
            status = Status.FEASIBLE if status is Status.OPTIMAL else status
        elif bound is not None:
            bound = min(bound, energy)
        stats = replace(
            outcome.stats,
            solver=self.name,
            wall_s=watch.elapsed,
            message=message,
            overrun_s=_overrun(watch),
        )
        weights = problem.weights(x) if isinstance(problem, MIQP) and x is not None else None
        return Solution(x, energy, bound, status, stats, weights)


def _unanswered(watch: Watch) -> Outcome:
    """Interrupted before there was an answer; `_finish` puts a feasible start in its place."""
    return Outcome(None, Status.NO_INCUMBENT, watch.stats("interrupted"))


def _overrun(watch: Watch) -> float:
    limit = watch.limits.time_s
    over = watch.elapsed - limit
    return over if over > 0.1 * limit + 0.05 else 0.0


def _join(a: str, b: str) -> str:
    return f"{a}; {b}" if a else b
