"""Exhaustive search: every assignment, hence a proof."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import UnsupportedProblemError
from optiprune.solvers.options import check_whole
from optiprune.solvers.result import Status

from .chunks import Incumbent, run_chunks
from .construct import cheap_start
from .enumerate import gray_walk, support_tree, tree_walk
from .instance import Instance, build_instance
from .support_search import SupportSearch

__all__ = ["Exhaustive", "assignments", "work"]

# a support costs about this many times an assignment
_SUPPORT_COST = 32


def assignments(problem: Problem) -> int:
    """How many assignments an exhaustive search visits: 2^n, or the product of the C(size, k)."""
    if isinstance(problem, MIQP):
        return math.comb(problem.n, problem.k)
    if isinstance(problem, CardinalityQP):
        sizes = np.bincount(problem.groups, minlength=problem.n_groups)
        return math.prod(math.comb(int(s), int(k)) for s, k in zip(sizes, problem.k, strict=True))
    return 1 << problem.n


def work(problem: Problem) -> int:
    """About how many additions an exhaustive search makes, each of some nanosecond.

    A tree of the assignments with k ones among n has C(n + 1, k) nodes that add a one and
    C(n + 1, n - k) that do not. The former cost as much as there are ones above them, for an MIQP
    the square of that; summed over the tree, the identities
    ``sum_j j C(z + j, j) = (z + 1) C(n + 1, k - 1)`` and
    ``sum_j j (j - 1) C(z + j, j) = (z + 1) (z + 2) C(n + 1, k - 2)`` with z = n - k give it.
    """
    n = problem.n
    if isinstance(problem, MIQP):
        k, z = problem.k, n - problem.k
        return _nodes(n, k) + (z + 1) * (z + 2) * _comb(n + 1, k - 2)
    if not isinstance(problem, CardinalityQP):
        rows = problem.n_rows if isinstance(problem, BudgetQP) else 0
        return (n + rows) << n
    sizes = np.bincount(problem.groups, minlength=problem.n_groups)
    return _grouped_work(tuple(sizes.tolist()), tuple(problem.k.tolist()))


@lru_cache(maxsize=1024)
def _grouped_work(sizes: tuple[int, ...], ks: tuple[int, ...]) -> int:
    total, above, paths = 0, 0, 1  # ones above a group, and assignments of the groups before it
    for size, k in zip(sizes, ks, strict=True):
        adds = (size - k + 1) * _comb(size + 1, k - 1) + above * _comb(size + 1, k)
        total += paths * (_nodes(size, k) + adds)
        above += k
        paths *= _comb(size, k)
    return total


def _nodes(n: int, k: int) -> int:
    return 2 * (_comb(n + 1, k) + _comb(n + 1, n - k))


def _comb(n: int, k: int) -> int:
    return math.comb(n, k) if k >= 0 else 0


@dataclass(frozen=True)
class Exhaustive(BaseSolver):
    """Visits every assignment: OPTIMAL when it comes to the end, FEASIBLE when stopped before.

    `QUBO` and `BudgetQP` in the order of a Gray code (every assignment of a budgeted problem is
    visited, feasible or not; INFEASIBLE when none is); `CardinalityQP` and `MIQP` by a tree of the
    assignments with the right counts, so that what matters is C(n, k) and not n, with a factor of
    up to n (for an MIQP n^2) where k is close to n.

    Attributes
    ----------
    max_assignments : refuse larger problems (for an MIQP a 32nd of it). The default, 2^28, is
        some seconds; about 10 ns an assignment.
    """

    max_assignments: int = 1 << 28

    name: ClassVar[str] = "exhaustive"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, BudgetQP, MIQP}), exact=True
    )

    def __post_init__(self) -> None:
        check_whole(self, max_assignments=1)

    def require_support(self, problem: Problem) -> None:
        """As in the base class; also refuses problems with too many assignments."""
        super().require_support(problem)
        count = assignments(problem)
        limit = self.max_assignments
        unit = "assignments"
        if isinstance(problem, MIQP):
            limit, unit = max(1, limit // _SUPPORT_COST), "supports"
        if count > limit:
            # not by its digits: Python refuses to write numbers of more than 4300
            size = str(count) if count < 10**9 else f"about 10^{int(math.log10(count))}"
            others = (
                "'local-search' (no proof), or 'exact' or 'pyomo' with scip (a proof)"
                if isinstance(problem, MIQP)
                else "'annealing' (no proof), or 'highs' or 'pyomo' (a proof)"
            )
            raise UnsupportedProblemError(
                f"solver 'exhaustive' would visit {size} {unit} of this "
                f"{type(problem).__name__} with n = {problem.n}, its limit is {limit}; use "
                f"{others}, fix variables (optiprune.problems.fix_variables), or raise "
                "max_assignments"
            )

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        incumbent = Incumbent(problem, watch)
        finished = False
        reason: str | None = None
        with incumbent.kept():
            if isinstance(problem, MIQP):
                finished, reason = self._supports(problem, x0, seed, watch, incumbent)
            elif isinstance(problem, CardinalityQP):
                finished, reason = self._tree(problem, watch, incumbent)
            else:
                finished, reason = self._gray(problem, watch, incumbent)
        if not finished:
            return incumbent.outcome(reason)
        stats = watch.stats("completed")
        if incumbent.x is None:
            return Outcome(None, Status.INFEASIBLE, stats)
        # the bound is the float64 energy of the best; `BaseSolver` caps it by the recomputed one
        return Outcome(incumbent.x, Status.OPTIMAL, stats, bound=problem.energy(incumbent.x))

    def _gray(
        self, problem: QUBO | BudgetQP, watch: Watch, incumbent: Incumbent
    ) -> tuple[bool, str | None]:
        n = problem.n
        if isinstance(problem, BudgetQP):
            A, low, high = problem.A, problem.lower, problem.upper
        else:
            A, low, high = np.zeros((0, n)), np.zeros(0), np.zeros(0)
            incumbent.measure(np.zeros(n, np.int8))
        AT = np.ascontiguousarray(np.asarray(A, dtype=np.float64).T)
        slack = 1e-7 * (1.0 + np.abs(AT).sum(axis=0))
        lows = np.array(low, dtype=np.float64)
        highs = np.array(high, dtype=np.float64)
        inst = build_instance(problem, "float64", watch)
        x, best_x = np.zeros(n, np.int8), np.zeros(n, np.int8)
        h, use = np.zeros(n), np.zeros(len(lows))
        counters = np.array([0, 1 << n], dtype=np.int64)
        floats = np.array([0.0, np.inf])
        target = watch.limits.target - inst.offset

        def kernel(steps: int) -> int:
            return int(
                gray_walk(
                    inst.J, inst.a, AT, lows, highs, slack, x, h, use, best_x, counters, floats,
                    steps, target,
                )
            )  # fmt: skip

        def through() -> bool:
            return bool(counters[0] == counters[1])

        reason = _visit(kernel, through, inst, best_x, floats, watch, incumbent)
        return through(), reason

    def _tree(
        self, problem: CardinalityQP, watch: Watch, incumbent: Incumbent
    ) -> tuple[bool, str | None]:
        n = problem.n
        cost = np.asarray(problem.linear + problem.diagonal())
        incumbent.measure(cheap_start(cost, problem.groups, problem.k))
        inst = build_instance(problem, "float64", watch)
        group = np.repeat(np.arange(len(inst.k)), np.diff(inst.starts)).astype(np.int64)
        ends, need = inst.starts[1:].copy(), inst.k.copy()
        x, best_x = np.zeros(n, np.int8), np.zeros(n, np.int8)
        tried, ones = np.zeros(n + 1, np.int8), np.zeros(n, np.int64)
        energy = np.zeros(n + 1)
        counters = np.zeros(2, np.int64)
        floats = np.array([0.0, np.inf])
        target = watch.limits.target - inst.offset

        def kernel(steps: int) -> int:
            return int(
                tree_walk(
                    inst.J, inst.a, group, ends, need, x, tried, ones, energy, best_x, counters,
                    floats, steps, target,
                )
            )  # fmt: skip

        def through() -> bool:
            return bool(counters[0] < 0)

        reason = _visit(kernel, through, inst, best_x, floats, watch, incumbent)
        return through(), reason

    def _supports(
        self,
        problem: MIQP,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> tuple[bool, str | None]:
        SupportSearch(problem, seed, watch, incumbent).first(x0)
        n, k = problem.n, problem.k
        H = np.ascontiguousarray(problem.dense(), dtype=np.float64).copy()
        b, M = np.array(problem.b, dtype=np.float64), np.array(problem.M, dtype=np.float64)
        x, best_x = np.zeros(n, np.int8), np.zeros(n, np.int8)
        tried, rows = np.zeros(n + 1, np.int8), np.zeros(k, np.int64)
        L, z, w = np.zeros((k + 1, k + 1)), np.zeros(k), np.zeros(k)
        size, rank = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
        energy = np.zeros(n + 1)
        counters = np.zeros(2, np.int64)
        floats = np.array([0.0, incumbent.energy - problem.offset])
        target = watch.limits.target - problem.offset

        def advance(steps: int) -> tuple[int, bool]:
            before = floats[1]
            done = int(
                support_tree(
                    H, b, M, k, x, tried, rows, L, z, w, size, rank, energy, best_x, counters,
                    floats, steps, target,
                )
            )  # fmt: skip
            watch.moves += done
            if counters[1] == 1:
                true = problem.energy(x)
                if true - problem.offset < floats[1]:
                    floats[1] = true - problem.offset
                    best_x[:] = x
            if floats[1] < before:
                incumbent.offer(best_x.copy(), float(floats[1]) + problem.offset)
                _go_on(floats, target, watch)
            return done, bool(counters[0] < 0)

        reason = run_chunks(watch, incumbent, advance)
        return bool(counters[0] < 0), reason


def _visit(
    kernel: Callable[[int], int],
    through: Callable[[], bool],
    inst: Instance,
    best_x: npt.NDArray[np.int8],
    floats: npt.NDArray[np.float64],
    watch: Watch,
    incumbent: Incumbent,
) -> str | None:
    """Run a walk in chunks until it is through, and offer its incumbents."""

    def advance(steps: int) -> tuple[int, bool]:
        before = floats[1]
        done = kernel(steps)
        watch.moves += done
        if floats[1] < before:
            incumbent.offer(inst.outward(best_x), inst.energy(best_x))
            _go_on(floats, watch.limits.target - inst.offset, watch)
        return done, through()

    return run_chunks(watch, incumbent, advance, first=1 << 14)


def _go_on(floats: npt.NDArray[np.float64], target: float, watch: Watch) -> None:
    """Undo a kernel's stop at a target that its rounding alone has met."""
    if floats[1] <= target and watch.best > watch.limits.target:
        floats[1] = np.nextafter(target, np.inf)
