"""Branch and bound with a proof: for problems that pruning makes, up to some hundred variables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, CardinalityQP
from optiprune.problems.bounds import energy_range
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import check_whole
from optiprune.solvers.result import Status
from optiprune.solvers.stop import Limits

from .annealing import Annealing
from .branch_kernels import (
    ACTIVE,
    BEST,
    FIXED,
    HEAP,
    LAST,
    NODES,
    PARENT,
    ROOT,
    SLOTS,
    STACK,
    TOLERANCE,
    explore,
    open_bound,
)
from .chunks import Incumbent, run_chunks
from .instance import Instance, OutOfTime, build_instance
from .local_search import LocalSearch
from .relax_kernels import relaxed_fields
from .relaxation import Form, convex_forms, tangent_bound
from .subset_bound import all_free
from .subset_tree import prove_subset
from .tabu import Tabu

__all__ = ["BranchAndBound"]

# passes over nodes tried before the semidefinite programme is paid for
_CHEAP_PASSES = 400
# above this many variables annealing finds better first incumbents than tabu search
_TABU_N = 256


@dataclass(frozen=True)
class BranchAndBound(BaseSolver):
    """Proves optima of `CardinalityQP` (groups included), `QUBO` and `MIQP` by convex relaxations.

    A heuristic gives the first incumbent. The problem is written in a convex form that agrees with
    it on binaries, with the diagonal that gives the best bound (a semidefinite programme, once the
    tree shows that it is worth it); a tree is searched whose nodes are bounded by that form's
    continuous relaxation. Made for dense problems whose relaxation is tight, as positive
    semidefinite curvature makes them: tens of variables in milliseconds, n = 128 in seconds to
    minutes. When stopped before the end, the incumbent comes with the bound reached.

    For an `MIQP` (best subset with continuous weights) the relaxation is the perspective one, with
    a diagonal that is improved at every node; see `subset_kernels`. n = 32 takes up to seconds,
    n = 64 up to minutes. Where H is singular, supports within some 1e-3 of the best are visited one
    by one; if then only some weights have a finite M, no bound is claimed. An `MIQP` with a support
    that is unbounded below raises ProblemError once that support is priced.

    Source: Billionnet, Elloumi and Plateau, "Improving the performance of standard solvers for
    quadratic 0-1 programs by a tight convex reformulation: the QCR method", Discrete Applied
    Mathematics 157 (2009); Achterberg, Koch and Martin, "Branching rules revisited", Operations
    Research Letters 33 (2005).

    Attributes
    ----------
    gap : OPTIMAL means: no assignment is better by more than ``gap`` times the sum of the absolute
        terms of the answer's energy; of an `MIQP`, times ``b'w + 1/2 w'Hw`` of the answer's
        weights. Integer data are solved exactly.
    memory_mb : of the waiting nodes; beyond it the search goes on depth first
    """

    gap: float = 1e-9
    memory_mb: int = 256

    name: ClassVar[str] = "exact"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset({QUBO, CardinalityQP, MIQP}), exact=True
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.gap < 1.0:
            raise SolverOptionError(f"gap must be in [0, 1), got {self.gap}")
        check_whole(self, memory_mb=1)

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        if problem.n == 0:
            stats = watch.stats("completed")
            return Outcome(np.zeros(0, np.int8), Status.OPTIMAL, stats, problem.offset)
        incumbent = Incumbent(problem, watch)
        bound = _first_bound(problem) if math.isinf(watch.limits.time_s) else -math.inf
        proven = False
        reason: str | None = None
        extra: dict[str, Any] = {}
        try:
            reason = self._first(problem, x0, seed, watch, incumbent)
            if reason is None and isinstance(problem, MIQP):
                proven, reason, reached, extra = prove_subset(
                    problem, watch, incumbent, gap=self.gap, memory_mb=self.memory_mb
                )
                bound = max(bound, reached)
            elif reason is None:
                proven, reason, reached, extra = self._prove(problem, watch, incumbent)
                bound = max(bound, reached)
        except OutOfTime:
            reason = "time"
        except KeyboardInterrupt:
            if incumbent.x is None:
                raise
            reason = "interrupted"
        stats = watch.stats("completed" if proven else reason or "completed", **extra)
        status = Status.OPTIMAL if proven else Status.FEASIBLE
        if incumbent.x is None:
            status = Status.NO_INCUMBENT
        return Outcome(incumbent.x, status, stats, bound if math.isfinite(bound) else None)

    def _first(
        self,
        problem: QUBO | CardinalityQP | MIQP,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        incumbent: Incumbent,
    ) -> str | None:
        """A good incumbent from a heuristic, in at most half the time."""
        solver: BaseSolver
        if isinstance(problem, MIQP):
            solver = LocalSearch()
        elif problem.n <= _TABU_N or isinstance(problem, QUBO):
            solver = Tabu()
        else:
            solver = Annealing()
        share = Watch(
            Limits(time_s=0.5 * watch.time_left, target=watch.limits.target),
            interrupt=watch.interrupt,
        )
        found = solver._solve(problem, x0, seed, share)
        if found.x is not None:
            incumbent.measure(np.asarray(found.x, dtype=np.int8))
        return "interrupted" if found.stats.stop_reason == "interrupted" else None

    def _prove(
        self, problem: QUBO | CardinalityQP, watch: Watch, incumbent: Incumbent
    ) -> tuple[bool, str | None, float, dict[str, Any]]:
        """(whether proven, why it stopped, lower bound, statistics)."""
        inst = build_instance(problem, "float64", watch)
        assert incumbent.x is not None
        tolerance, exact = self._tolerance(inst, incumbent.x)
        deadline = watch.start + watch.limits.time_s
        bound = -math.inf
        best: Form | None = None
        tree: _Tree | None = None
        nodes = 0  # of trees that were given up
        reason = incumbent.reason_to_stop()
        try:
            for form in convex_forms(inst, np.asarray(problem.diagonal()), deadline=deadline):
                reason = incumbent.reason_to_stop()
                if reason is not None:
                    break
                relaxed = tangent_bound(form, deadline=deadline)
                if best is None or relaxed > bound:
                    best = form
                bound = max(bound, relaxed)
                if form.method in ("diagonal dominance", "uniform spectral shift"):
                    continue
                nodes += 0 if tree is None else tree.nodes
                tree = _Tree(best, inst, incumbent, tolerance, self.memory_mb)
                last = form.method == "semidefinite programme"
                reason = tree.search(watch, incumbent, math.inf if last else _CHEAP_PASSES)
                bound = max(bound, tree.bound)
                if tree.done or reason is not None:
                    break
            else:
                if best is not None and reason is None:
                    # no time or no use for a semidefinite programme: go on with what there is
                    tree = tree or _Tree(best, inst, incumbent, tolerance, self.memory_mb)
                    reason = tree.search(watch, incumbent, math.inf)
        except KeyboardInterrupt:
            reason = "interrupted"  # with the bound reached so far
        extra: dict[str, Any] = {"nodes": nodes}
        finished, slack = False, tolerance
        if tree is not None:
            finished, slack = tree.done, max(tolerance, tree.tolerance)
            bound = max(bound, tree.bound)
            extra = {
                "nodes": nodes + tree.nodes,
                "root_bound": tree.root + inst.offset,
                "fixed": tree.fixed,
                "convex_form": tree.form.method,
            }
        # the tree goes by its convex form's energies, which have a rounding of their own
        proven = finished or incumbent.energy - inst.offset - bound <= slack
        if proven and exact:
            bound = incumbent.energy - inst.offset
        return proven, reason, bound + inst.offset, extra

    def _tolerance(self, inst: Instance, x: npt.NDArray[np.int8]) -> tuple[float, bool]:
        """(what an answer may be above the optimum, whether that makes it exact: integer data)."""
        on = inst.inward(x) == 1
        J = inst.J[:, : inst.n]
        whole = bool((inst.a == np.floor(inst.a)).all() and (np.floor(J) == J).all())
        size = float(np.abs(inst.a).sum() + np.abs(J).sum())
        if whole and size < 2.0**40:
            # x'Jx is even times one half: energies are whole numbers
            return 0.999, True
        terms = float(np.abs(inst.a[on]).sum() + 0.5 * np.abs(J[np.ix_(on, on)]).sum())
        return self.gap * terms, False


def _first_bound(problem: MIQP | QUBO | CardinalityQP) -> float:
    """A bound that is there at once."""
    return all_free(problem) if isinstance(problem, MIQP) else energy_range(problem)[0]


class _Tree:
    """One search tree over a convex form; energies here leave out the instance's offset."""

    def __init__(
        self, form: Form, inst: Instance, incumbent: Incumbent, tolerance: float, memory_mb: int
    ) -> None:
        n = form.n
        self.form, self.inst = form, inst
        places = max(64, min(1 << 20, memory_mb * (1 << 20) // max(1, 9 * n)))
        # pages that are never used are never taken
        self.node_x = np.empty((places + n + 1, n))
        self.node_fix = np.empty((places + n + 1, n), np.int8)
        self.node_bound = np.empty(places + n + 1)
        self.heap = np.empty(places, np.int64)
        self.places = np.arange(places, dtype=np.int64)[::-1].copy()
        self.x, self.g = form.start(), np.empty(n)
        relaxed_fields(form.M, form.c, self.x, self.g)
        self.fix = np.full(n, -1, np.int8)
        self.need = form.k.copy()
        self.psum, self.pcount = np.zeros((2, n)), np.zeros((2, n))
        assert incumbent.x is not None
        self.best_x = inst.inward(incumbent.x)
        self.work = np.empty((4, n))
        self.fix2, self.need2 = np.empty(n, np.int8), form.k.copy()
        self.ends = np.empty((2, len(form.k)))
        self.counters = np.zeros(8, np.int64)
        self.counters[NODES] = self.counters[ACTIVE] = 1
        self.counters[SLOTS] = places
        self.counters[LAST] = -1
        self.floats = np.zeros(5)
        self.floats[BEST] = (incumbent.energy - inst.offset) / form.scale
        self.floats[TOLERANCE] = max(tolerance / form.scale, form.rounding)
        self.floats[PARENT] = self.floats[ROOT] = -np.inf

    @property
    def nodes(self) -> int:
        return int(self.counters[NODES])

    @property
    def fixed(self) -> int:
        """Variables fixed by the tangent, over all nodes."""
        return int(self.counters[FIXED])

    @property
    def tolerance(self) -> float:
        """What the answer of a finished tree may be above the optimum."""
        return self.form.scale * float(self.floats[TOLERANCE])

    @property
    def root(self) -> float:
        return self.form.scale * float(self.floats[ROOT])

    @property
    def done(self) -> bool:
        return bool(self.counters[ACTIVE] == 0 and self.counters[HEAP] + self.counters[STACK] == 0)

    @property
    def bound(self) -> float:
        """A lower bound on every assignment's energy."""
        cutoff = float(self.floats[BEST] - self.floats[TOLERANCE])
        waiting = float(open_bound(self.node_bound, self.heap, self.counters, self.floats))
        return self.form.scale * min(cutoff, waiting)

    def search(self, watch: Watch, incumbent: Incumbent, passes: float) -> str | None:
        """Make up to ``passes`` more passes over nodes; what stopped it, or None."""
        f = self.form
        target = (watch.limits.target - self.inst.offset) / f.scale

        def advance(count: int) -> tuple[int, bool]:
            before = self.floats[BEST]
            did = int(
                explore(
                    f.M, f.c, f.group, f.starts, f.k, self.x, self.g, self.fix, self.need,
                    self.node_x, self.node_fix, self.node_bound, self.heap, self.places, self.psum,
                    self.pcount, self.best_x, self.work, self.fix2, self.need2, self.ends,
                    self.counters, self.floats, count, target,
                )
            )  # fmt: skip
            watch.moves += did
            if self.floats[BEST] < before:
                x = self.inst.outward(self.best_x)
                incumbent.offer(x, self.inst.energy(self.best_x))
            return did, self.done

        return run_chunks(watch, incumbent, advance, passes, first=1)
