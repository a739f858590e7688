"""HiGHS: exact for small problems, by linearisation to a mixed-integer linear program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import (
    QUBO,
    BudgetQP,
    CardinalityQP,
    InfeasibleProblemError,
    ProblemError,
    QuadraticProblem,
)
from optiprune.problems.linearise import LinearModel, linearise
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import check_whole
from optiprune.solvers.result import Status

from .highs_options import check_options
from .highs_run import fill_milp, highspy_module, new_highs, run_highs, set_option
from .relaxation import relaxation_bound
from .scaling import coefficient_scale, scaled, with_scaled_rows

__all__ = ["Highs", "relaxation_bound"]

# What each ending of HiGHS means: the reason that we report, and whether it ends with a proof.
# Endings that are not listed here are failures.
_ENDINGS: dict[str, tuple[str, Status | None]] = {
    "kOptimal": ("completed", Status.OPTIMAL),
    "kModelEmpty": ("completed", Status.OPTIMAL),  # n = 0: the empty assignment is the only one
    "kInfeasible": ("completed", Status.INFEASIBLE),
    # every column has finite bounds, so that unbounded is ruled out
    "kUnboundedOrInfeasible": ("completed", Status.INFEASIBLE),
    "kTimeLimit": ("time", None),
    "kSolutionLimit": ("iterations", None),  # what HiGHS calls its node limit
    "kIterationLimit": ("iterations", None),
    "kObjectiveTarget": ("target", None),
    "kInterrupt": ("interrupted", None),
    "kHighsInterrupt": ("interrupted", None),
}

# A proof is believed up to this much, in units of the largest coefficient.
_PROOF = 1e-6


@dataclass(frozen=True)
class Highs(BaseSolver):
    """Branch and cut by HiGHS on the linearised problem; proves optima up to n of about 16 to 40.

    HiGHS has no mixed-integer *quadratic* solver: products of binaries become helper columns
    (`optiprune.problems.linearise`), and an `MIQP` is refused. Coefficients are scaled to about 1
    first, since HiGHS judges gaps by absolute tolerances. OPTIMAL is claimed when HiGHS ends with
    a proof and its bound meets the recomputed energy within about 1e-6 of the largest coefficient
    (plus 1e-7 for each helper column, HiGHS's own tolerance on rows).

    Parameters
    ----------
    linearisation : "auto", "fortet" or "glover"
        "fortet" makes a helper a product (tighter, up to n(n-1)/2 of them), "glover" one a variable
        (small). "auto" is "fortet" where at most 2n products occur, else "glover".
    mip_gap : gap at which HiGHS may stop, >= 0, relative to the energy less the problem's offset;
        an answer with such a gap is FEASIBLE
    relaxation : solve the convex relaxation (`relaxation_bound`) first and report the better bound;
        O(n**3), and far tighter than the linearised bound where Q is near positive semidefinite
    threads : threads for HiGHS, >= 1
    options : further options of HiGHS by name, such as ``{"mip_heuristic_effort": 0.2}``

    Stop criteria: time, target, iterations (as nodes), no improvement (in nodes). HiGHS looks at
    the clock only now and then; by how much it passed the limit stands in ``stats.overrun_s``.
    """

    name: ClassVar[str] = "highs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        problems=frozenset({QUBO, CardinalityQP, BudgetQP}), exact=True, keeps_time_limit=False
    )

    linearisation: Literal["auto", "fortet", "glover"] = "auto"
    mip_gap: float = 0.0
    relaxation: bool = True
    threads: int = 1
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.linearisation not in ("auto", "fortet", "glover"):
            raise SolverOptionError(
                f"linearisation must be 'auto', 'fortet' or 'glover', got {self.linearisation!r}"
            )
        if not (math.isfinite(self.mip_gap) and self.mip_gap >= 0):
            raise SolverOptionError(f"mip_gap must be >= 0, got {self.mip_gap!r}")
        check_whole(self, threads=1)
        if self.options:
            check_options(self.options, taken=_TAKEN)

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        highspy_module()
        if problem.n == 0:
            return Outcome(np.zeros(0, np.int8), Status.OPTIMAL, watch.stats("completed"))
        scale = coefficient_scale(problem)
        floor = -math.inf
        if self.relaxation and watch.time_left > 0:
            try:
                floor = relaxation_bound(problem, time_limit_s=max(watch.time_left, 0.0))
            except InfeasibleProblemError as e:
                return Outcome(None, Status.INFEASIBLE, watch.stats("completed", str(e)))
        model = _linear_model(with_scaled_rows(scaled(problem, scale)), self.linearisation)
        run = _Run(problem, model, watch)
        if watch.time_left <= 0:
            bound = None if floor == -math.inf else floor
            return Outcome(None, Status.NO_INCUMBENT, watch.stats("time"), bound)
        h = new_highs()
        fill_milp(h, model)
        self._set_options(h, seed, watch, problem, scale)
        if x0 is not None and problem.is_feasible(x0):
            start = highspy_module().HighsSolution()
            start.col_value = model.extend(x0).tolist()
            h.setSolution(start)
        run.listen(h)
        interrupted = run_highs(h, run.cancel, watch)
        return self._outcome(h, run, scale, floor, interrupted)

    def _set_options(
        self,
        h: Any,
        seed: np.random.SeedSequence,
        watch: Watch,
        problem: QuadraticProblem,
        scale: float,
    ) -> None:
        set_option(h, "threads", int(self.threads))
        set_option(h, "random_seed", int(seed.generate_state(1)[0] >> 1))  # HiGHS takes 31 bits
        set_option(h, "mip_rel_gap", float(self.mip_gap))
        set_option(h, "mip_abs_gap", _PROOF / 10)
        set_option(h, "mip_feasibility_tolerance", 1e-7)
        for key, value in self.options.items():
            set_option(h, key, value)
        limits = watch.limits
        if math.isfinite(limits.time_s):
            set_option(h, "time_limit", max(watch.time_left, 0.0))
        if math.isfinite(limits.iterations):
            set_option(h, "mip_max_nodes", int(min(limits.iterations, 2**31 - 1)))
        if limits.target > -math.inf:
            set_option(h, "objective_target", (limits.target - problem.offset) / scale)

    def _outcome(self, h: Any, run: _Run, scale: float, floor: float, interrupted: bool) -> Outcome:
        problem, watch = run.problem, run.watch
        info = h.getInfo()
        watch.moves = max(0, int(info.mip_node_count))
        ending = h.getModelStatus()
        words = h.modelStatusToString(ending)
        reason, proof = _ENDINGS.get(ending.name, ("failed", Status.FAILED))
        if info.primal_solution_status == 2:  # feasible, in HiGHS's numbering
            run.offer(np.asarray(h.getSolution().col_value))
        if reason == "interrupted" and run.reason and not interrupted:
            reason = run.reason
        bound = floor
        if math.isfinite(info.mip_dual_bound) and proof not in (Status.INFEASIBLE, Status.FAILED):
            # rows may be violated by HiGHS's tolerance, and the helpers' costs with them
            slack = 1e-7 * scale * (1 + len(run.model.pairs))
            bound = max(bound, scale * info.mip_dual_bound + problem.offset - slack)
        extra = {"nodes": watch.moves, "columns": run.model.n_cols, "rows": run.model.n_rows}
        stats = watch.stats(reason, "" if proof is Status.OPTIMAL else f"HiGHS: {words}", **extra)
        known = bound if bound > -math.inf else None
        if run.x is None:
            status = proof if proof in (Status.INFEASIBLE, Status.FAILED) else Status.NO_INCUMBENT
            return Outcome(None, status, stats, known)
        # the energy is the problem's own, not HiGHS's; the proof must hold for it
        tolerance = _PROOF * scale * (1 + 0.1 * len(run.model.pairs))
        proven = run.energy - bound <= tolerance
        if proven and (proof is Status.OPTIMAL or floor > -math.inf):
            return Outcome(run.x, Status.OPTIMAL, stats, bound)
        return Outcome(run.x, Status.FEASIBLE, stats, known)


# options of HiGHS that have a field or a stop criterion of their own
_TAKEN = {
    "output_flag": "nothing: the adapter is silent",
    "time_limit": "stop=TimeLimit(...)",
    "objective_target": "stop=Target(...)",
    "mip_max_nodes": "stop=IterationLimit(...)",
    "mip_rel_gap": "mip_gap",
    "random_seed": "seed",
    "threads": "threads",
}


class _Run:
    """What one run has found, told by HiGHS's callbacks, and whether it should go on."""

    def __init__(self, problem: QuadraticProblem, model: LinearModel, watch: Watch) -> None:
        self.problem, self.model, self.watch = problem, model, watch
        self.x: npt.NDArray[np.int8] | None = None
        self.energy = math.inf
        self.reason = ""

    def cancel(self) -> None:
        self.reason = "interrupted"

    def offer(self, z: npt.NDArray[Any]) -> None:
        """Take a solution of HiGHS if it rounds to a feasible and better assignment."""
        try:
            x = self.model.extract(np.asarray(z, dtype=np.float64))
        except ProblemError:
            return  # not integral after all: HiGHS's word is not enough
        if not self.problem.is_feasible(x):
            return
        energy = self.problem.energy(x)
        if energy < self.energy:
            self.x, self.energy = x, energy
            self.watch.offer(energy)

    def listen(self, h: Any) -> None:
        def improved(event: Any) -> None:
            self.watch.moves = max(self.watch.moves, int(event.data_out.mip_node_count))
            self.offer(event.data_out.mip_solution)

        def look(event: Any) -> None:
            self.watch.moves = max(self.watch.moves, int(event.data_out.mip_node_count))
            if not self.reason and self.x is not None:
                reason = self.watch.reason_to_stop()
                if reason in ("target", "no improvement"):
                    self.reason = reason
            if self.reason:
                event.interrupt()

        def look_in_lp(event: Any) -> None:
            if self.reason:
                event.interrupt()

        h.cbMipImprovingSolution += improved
        h.cbMipInterrupt += look
        h.cbSimplexInterrupt += look_in_lp


def _linear_model(problem: Any, linearisation: str) -> LinearModel:
    if linearisation == "auto":
        products = int(np.count_nonzero(np.triu(problem.dense(), 1)))
        linearisation = "fortet" if products <= 2 * problem.n else "glover"
    return linearise(problem, method="fortet" if linearisation == "fortet" else "glover")
