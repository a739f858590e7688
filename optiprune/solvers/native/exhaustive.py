"""Exhaustive search: every feasible assignment is seen, so the best one is proven."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError, UnsupportedProblemError
from optiprune.solvers.result import Status

from .chunks import Incumbent, run_chunks
from .tree import group_rest, walk

__all__ = ["Exhaustive"]

# one support costs a linear solve in Python, one assignment some nanoseconds in a kernel
_SUPPORT_COST = 2000


@dataclass(frozen=True)
class Exhaustive(BaseSolver):
    """Enumerate every feasible assignment and prove the best one.

    A depth-first tree with the local fields kept for every depth, float64; branches that cannot
    become feasible are cut. An MIQP is solved for every support. Stopped early, it returns what it
    has as FEASIBLE.

    Parameters
    ----------
    max_assignments : most assignments it agrees to enumerate; more is an error before any work.
        A support of an MIQP counts 2000. 2^28 take a few seconds.
    """

    max_assignments: float = 2.0**28

    name: ClassVar[str] = "exhaustive"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, BudgetQP, MIQP}), exact=True
    )

    def __post_init__(self) -> None:
        if not self.max_assignments >= 1:
            raise SolverOptionError(f"max_assignments must be >= 1, got {self.max_assignments!r}")

    def require_support(self, problem: Problem) -> None:
        """Also refuse what has too many assignments."""
        super().require_support(problem)
        size = assignments(problem)
        if size > self.max_assignments:
            raise UnsupportedProblemError(
                f"'exhaustive' would have to enumerate {size:.3g} assignments (n = {problem.n}), "
                f"more than max_assignments = {self.max_assignments:.3g}; fix variables "
                "(optiprune.problems.fix_variables), or use 'annealing', 'tabu' or 'highs'"
            )

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        incumbent = Incumbent(problem, watch)
        if x0 is not None and problem.violation(x0) <= 1e-9:
            incumbent.measure(x0.copy())
        try:
            if isinstance(problem, MIQP):
                reason = _supports(problem, watch, incumbent)
            else:
                reason = _tree(problem, watch, incumbent)
        except KeyboardInterrupt:
            if incumbent.x is None:
                raise
            reason = "interrupted"
        if reason is not None:
            return incumbent.outcome(reason)
        stats = watch.stats("completed")
        if incumbent.x is None:
            return Outcome(None, Status.INFEASIBLE, stats)
        return Outcome(incumbent.x, Status.OPTIMAL, stats, bound=incumbent.energy)


def assignments(problem: Any) -> float:
    """Number of assignments to enumerate (before budget rows cut any), as a float."""
    n = problem.n
    if isinstance(problem, MIQP):
        return _binomial(n, problem.k) * _SUPPORT_COST
    if isinstance(problem, CardinalityQP):
        sizes = np.bincount(problem.groups, minlength=problem.n_groups)
        logs = sum(
            math.log2(_binomial(int(s), int(k))) for s, k in zip(sizes, problem.k, strict=True)
        )
        return float(2.0 ** min(logs, 1000.0))
    return float(2.0 ** min(n, 1000))


def _binomial(n: int, k: int) -> float:
    count = math.comb(n, k)
    return float(count) if count < 2**1000 else 2.0**1000


def _tree(problem: Any, watch: Watch, incumbent: Incumbent) -> str | None:
    """Walk the whole tree; None when it was seen to the end."""
    n = problem.n
    J = 2.0 * problem.dense(np.float64)
    np.fill_diagonal(J, 0.0)
    fields = np.zeros((n + 1, max(1, n)))
    fields[0, :n] = problem.linear + problem.diagonal()
    energies = np.full(n + 1, problem.offset)
    if isinstance(problem, CardinalityQP):
        groups = problem.groups.astype(np.int64)
        room = problem.k.astype(np.int64)
    else:
        groups, room = np.zeros(n, dtype=np.int64), np.array([-1], dtype=np.int64)
    if isinstance(problem, BudgetQP):
        A, lower, upper = (np.array(v) for v in (problem.A, problem.lower, problem.upper))
    else:
        A, lower, upper = np.zeros((0, n)), np.zeros(0), np.zeros(0)
    least, most = (_rest_sums(f(A, 0.0)) for f in (np.minimum, np.maximum))
    state, tried = np.zeros(1, dtype=np.int64), np.zeros(n + 1, dtype=np.int8)
    x, best_x = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int8)
    best = np.array([incumbent.energy])
    rest = group_rest(groups, len(room))
    counts = np.zeros(len(room), dtype=np.int64)
    use = np.zeros((n + 1, A.shape[0]))

    def advance(steps: int) -> int:
        before = best[0]
        done: int = walk(
            J, fields, energies, groups, room, rest, counts, A, use, least, most, lower, upper,
            state, tried, x, best_x, best, steps,
        )  # fmt: skip
        watch.moves += done
        if best[0] < before:
            incumbent.offer(best_x.copy(), float(best[0]))
        return done

    reason = run_chunks(watch, incumbent, advance)
    # a target met by the last leaf of all is still a proof
    return None if state[0] < 0 else reason


def _rest_sums(part: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n + 1, m): sums over the variables at or behind every depth."""
    m, n = part.shape
    out = np.zeros((n + 1, m))
    out[:n] = np.cumsum(part[:, ::-1], axis=1)[:, ::-1].T
    return out


def _supports(problem: MIQP, watch: Watch, incumbent: Incumbent) -> str | None:
    for support in itertools.combinations(range(problem.n), problem.k):
        reason = incumbent.reason_to_stop()
        if reason is not None:
            return reason
        x = np.zeros(problem.n, dtype=np.int8)
        x[list(support)] = 1
        incumbent.measure(x)
        watch.moves += 1
    return None
