"""One search tree over the supports of an `MIQP`, and the proof that it makes."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from optiprune.problems import MIQP
from optiprune.solvers.base import Watch

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
    open_bound,
)
from .chunks import Incumbent, run_chunks
from .subset_bound import all_free
from .subset_branch import ASKED, BOXED, FREE, NEED, PRICE, search_subsets
from .subset_relaxation import (
    EIGEN_S,
    Scratch,
    SubsetForm,
    SubsetRoot,
    relax_root,
    subset_form,
)

__all__ = ["SubsetTree", "prove_subset"]

# linear systems that a pass over a node may take, at most, by the time of one
_PASS = 60.0


def prove_subset(
    problem: MIQP, watch: Watch, incumbent: Incumbent, *, gap: float, memory_mb: int
) -> tuple[bool, str | None, float, dict[str, Any]]:
    """(whether proven, why it stopped, lower bound, statistics), from the incumbent on."""
    assert incumbent.x is not None
    n, k = problem.n, problem.k
    reason = incumbent.reason_to_stop()
    if k in (0, n):
        # a single assignment
        return True, reason, incumbent.energy, {"nodes": 1}
    deadline = watch.start + watch.limits.time_s - incumbent.reserve_s
    if reason is not None:
        return False, reason, -math.inf, {}
    # of the gain, not of the terms of the energy, which large weights make far larger: at the best
    # weights b'w is twice what they gain, and 1/2 w'Hw once
    gain = 3.0 * abs(incumbent.energy - problem.offset)
    rounding = 16.0 * n * float(np.finfo(np.float64).eps) * (gain + abs(problem.offset))
    tolerance = max(gap * gain, rounding)
    bound = all_free(problem) if time.perf_counter() + EIGEN_S * n**3 < deadline else -math.inf
    if incumbent.energy - bound <= tolerance:
        return True, reason, min(bound, incumbent.energy), {"nodes": 1}
    if time.perf_counter() + 6.0 * EIGEN_S * n**3 > deadline:
        return False, "time", bound, {}
    form = subset_form(problem)
    if form is None:
        return False, reason, bound, {}
    scratch = Scratch(n)
    cutoff = form.inward(incumbent.energy - tolerance)
    root = relax_root(form, scratch, deadline=deadline, cutoff=cutoff)
    bound = max(bound, form.outward(root.bound))
    tree = SubsetTree(problem, form, root, scratch, incumbent, tolerance, memory_mb)
    # a pass cannot be cut short: what one takes is kept back from the limit
    incumbent.reserve_s += _PASS * root.pace
    try:
        reason = tree.search(watch, incumbent, math.inf)
    except KeyboardInterrupt:
        reason = "interrupted"
    if not tree.asked:
        bound = max(bound, tree.bound)
    bound = min(bound, incumbent.energy)
    # a tree that is done leaves nothing below its cutoff
    finished = tree.done and not tree.asked
    proven = finished or incumbent.energy - bound <= tolerance
    extra = {
        "nodes": tree.nodes,
        "root_bound": max(tree.root, form.outward(root.bound)),
        "fixed": tree.fixed,
    }
    return proven, reason, bound, extra


class SubsetTree:
    """One search tree; bounds and energies here are the problem's.

    A support is left by a bound that holds, or priced by `MIQP.energy`, so that a tree that is done
    is a proof whatever H is.
    """

    def __init__(
        self,
        problem: MIQP,
        form: SubsetForm,
        root: SubsetRoot,
        scratch: Scratch,
        incumbent: Incumbent,
        tolerance: float,
        memory_mb: int,
    ) -> None:
        n = form.n
        self.problem, self.form, self.scratch = problem, form, scratch
        places = max(64, min(1 << 20, memory_mb * (1 << 20) // max(1, 17 * n)))
        # pages that are never used are never taken
        self.node_w, self.node_d = np.empty((2, places + n + 1, n))
        self.node_fix = np.empty((places + n + 1, n), np.int8)
        self.node_bound = np.empty(places + n + 1)
        self.heap = np.empty(places, np.int64)
        self.slots = np.arange(places, dtype=np.int64)[::-1].copy()
        self.fix, self.d = np.full(n, -1, np.int8), root.d.copy()
        self.C, self.b = form.H.copy(), form.b.copy()
        self.free = np.arange(n)
        self.w, self.z = root.w.copy(), np.ones(n)
        self.p, self.h = np.empty(n), np.empty(n)
        self.psum, self.pcount = np.zeros((2, n)), np.zeros((2, n))
        self.trial_x = np.zeros(n, np.int8)
        self.boxed = np.zeros(n)
        self.counters = np.zeros(14, np.int64)
        self.counters[BOXED] = np.isfinite(form.M).all()
        self.counters[NODES] = self.counters[ACTIVE] = 1
        self.counters[SLOTS] = places
        self.counters[LAST] = -1
        self.counters[FREE], self.counters[NEED] = n, form.k
        self.floats = np.zeros(7)
        self.tolerance = tolerance
        self.floats[TOLERANCE] = tolerance / (form.scale * form.stretch)
        self._aim(incumbent.energy)
        self.floats[PARENT] = root.bound
        self.floats[ROOT] = -np.inf

    def _aim(self, energy: float) -> None:
        """What is to be beaten: by a bound, and by the price of a candidate."""
        f = self.form
        self.floats[BEST] = f.inward(energy)
        self.floats[PRICE] = (energy - self.tolerance - f.offset) / f.scale

    @property
    def nodes(self) -> int:
        return int(self.counters[NODES])

    @property
    def fixed(self) -> int:
        """Variables fixed by the bound's gains, over all nodes."""
        return int(self.counters[FIXED])

    @property
    def root(self) -> float:
        return self.form.outward(float(self.floats[ROOT]))

    @property
    def asked(self) -> bool:
        """Whether a candidate has not been priced yet, so that `bound` does not hold."""
        return bool(self.counters[ASKED])

    @property
    def done(self) -> bool:
        return bool(self.counters[ACTIVE] == 0 and self.counters[HEAP] + self.counters[STACK] == 0)

    @property
    def bound(self) -> float:
        """A lower bound on the energy of every support."""
        cutoff = float(self.floats[BEST] - self.floats[TOLERANCE])
        waiting = float(open_bound(self.node_bound, self.heap, self.counters, self.floats))
        return self.form.outward(min(cutoff, waiting))

    def search(self, watch: Watch, incumbent: Incumbent, passes: float) -> str | None:
        """Make up to ``passes`` more passes over nodes; what stopped it, or None."""
        s, f = self.scratch, self.form
        target = f.inward(watch.limits.target)

        def advance(count: int) -> tuple[int, bool]:
            did = int(
                search_subsets(
                    f.H, f.b, f.M, f.k, self.fix, self.d, self.C, self.b, self.free, self.w, self.z,
                    self.p, self.h, self.node_w, self.node_d, self.node_fix, self.node_bound,
                    self.heap, self.slots, self.psum, self.pcount, self.trial_x, self.boxed, s.C2,
                    s.L, s.R, s.S, s.work, s.wide, s.whole, self.counters, self.floats, count,
                    target,
                )
            )  # fmt: skip
            watch.moves += did
            if self.counters[ASKED]:
                self._price(incumbent)
            return did, self.done

        return run_chunks(watch, incumbent, advance, passes, first=1)

    def _price(self, incumbent: Incumbent) -> None:
        """Take the kernel's candidate by its true energy, filled up to k members."""
        x = self.trial_x.copy()
        x[np.flatnonzero(x == 0)[: self.form.k - int(x.sum())]] = 1
        assert incumbent.x is not None
        if not np.array_equal(x, incumbent.x):
            incumbent.offer(x, self.problem.energy(x))
            self._aim(incumbent.energy)
        self.counters[ASKED] = 0
