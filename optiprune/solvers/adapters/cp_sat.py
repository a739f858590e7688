"""CP-SAT of OR-tools: exact for small problems, by products as clauses and whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, BudgetQP, CardinalityQP, QuadraticProblem
from optiprune.problems.linearise import LinearModel, linearise
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import BackendMissingError, SolverOptionError
from optiprune.solvers.options import check_whole
from optiprune.solvers.result import Status

from .cp_sat_process import CpSatProcess, TookTooLongError, borrowed
from .integer_form import IntegerForm, integer_form
from .interruptible import run_interruptible
from .scaling import coefficient_scale, scaled, with_scaled_rows

__all__ = ["CpSat"]

# A proof is believed up to this much, in units of the largest coefficient; rounding to whole
# numbers loses far less.
_PROOF = 1e-6
# seconds beyond a time limit after which the process is taken for hung
_PATIENCE = 30.0

_TAKEN = {
    "num_workers": "threads",
    "num_search_workers": "threads",
    "random_seed": "seed",
    "max_time_in_seconds": "stop=TimeLimit(...)",
    "max_number_of_conflicts": "stop=IterationLimit(...)",
}


@dataclass(frozen=True)
class CpSat(BaseSolver):
    """CP-SAT of OR-tools on the linearised problem; proves optima up to n of about 20 to 40.

    Needs ``pip install ortools``. A helper binary stands for each product
    (`optiprune.problems.linearise`, "fortet"), and all numbers are made whole: costs are multiplied
    by a power of two and rounded, to about 2**-50 of their sum. What rounding can have added is
    taken off the bound, so that the bound and a proof hold for the real coefficients.

    CP-SAT runs in a process of its own, since ortools and highspy cannot share one. It is started
    by the first solve, which takes about a second, and kept.

    Parameters
    ----------
    threads : workers of CP-SAT, >= 1; with more than one, answers may differ from run to run
    options : parameters of CP-SAT by name, such as ``{"cp_model_presolve": False}``;
        ``linearization_level`` is 2 unless set here: products are all there is, and the bound after
        the same time is three times as close

    Stop criteria: time, target, iterations (as conflicts). By how much it passed a time limit, with
    building its model, stands in ``stats.overrun_s``.
    """

    name: ClassVar[str] = "cp-sat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        problems=frozenset({QUBO, CardinalityQP, BudgetQP}), exact=True, keeps_time_limit=False
    )

    threads: int = 1
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole(self, threads=1)
        for key in self.options:
            if key in _TAKEN:
                raise SolverOptionError(
                    f"CP-SAT parameter {key!r} is set by the adapter; use {_TAKEN[key]}"
                )
        if find_spec("ortools") is None:  # not imported here: see above
            raise BackendMissingError(
                "solver 'cp-sat' needs ortools, which is not installed; "
                "install it with: pip install ortools"
            )

    def _solve(
        self,
        problem: QuadraticProblem,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        if problem.n == 0:
            stats = watch.stats("completed")
            return Outcome(np.zeros(0, np.int8), Status.OPTIMAL, stats, problem.offset)
        run: _Run | None = None
        try:
            with borrowed() as process:
                if watch.time_left <= 0:
                    return Outcome(None, Status.NO_INCUMBENT, watch.stats("time"))
                scale = coefficient_scale(problem)
                model = linearise(with_scaled_rows(scaled(problem, scale)), method="fortet")
                form = integer_form(model)
                run = _Run(problem, process, watch)
                task = self._task(form, model, problem, x0, seed, watch)
                patience = watch.time_left + _PATIENCE if math.isfinite(watch.time_left) else None
                answer, interrupted = run_interruptible(
                    lambda: process.solve(task, run.offer, patience), run.cancel, watch
                )
        except TookTooLongError as e:
            if run is None:
                raise  # it did not even start
            status = Status.NO_INCUMBENT if run.x is None else Status.FEASIBLE
            return Outcome(run.x, status, watch.stats("time", str(e)))
        if isinstance(answer, str):
            raise SolverOptionError(f"CP-SAT refuses the solve: {answer}")
        return _outcome(answer, run, form, scale, len(model.pairs), interrupted)

    def _task(
        self,
        form: IntegerForm,
        model: LinearModel,
        problem: QuadraticProblem,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "linearization_level": 2,
            **self.options,
            "num_workers": int(self.threads),
            "random_seed": int(seed.generate_state(1)[0] >> 1),  # 31 bits
        }
        limits = watch.limits
        if math.isfinite(limits.time_s):
            parameters["max_time_in_seconds"] = max(watch.time_left, 1e-3)
        if math.isfinite(limits.iterations):
            parameters["max_number_of_conflicts"] = int(limits.iterations)
        hint = None
        if x0 is not None and problem.is_feasible(x0):
            hint = model.extend(x0).astype(np.int8)
        return {
            "n": problem.n,
            "c": form.c,
            "indptr": form.indptr,
            "indices": form.indices,
            "data": form.data,
            "lower": form.lower,
            "upper": form.upper,
            "hint": hint,
            "parameters": parameters,
        }


class _Run:
    """What one solve has found, and why it was stopped."""

    def __init__(self, problem: QuadraticProblem, process: CpSatProcess, watch: Watch) -> None:
        self.problem, self.process, self.watch = problem, process, watch
        self.x: npt.NDArray[np.int8] | None = None
        self.energy = math.inf
        self.reason = ""

    def cancel(self) -> None:
        self.reason = "interrupted"
        self.process.stop()

    def offer(self, values: list[int]) -> None:
        x = np.array(values, dtype=np.int8)
        if not self.problem.is_feasible(x):
            return
        energy = self.problem.energy(x)
        if energy < self.energy:
            self.x, self.energy = x, energy
            self.watch.offer(energy)
        if not self.reason and energy <= self.watch.limits.target:
            self.reason = "target"
            self.process.stop()


def _outcome(
    answer: dict[str, Any],
    run: _Run,
    form: IntegerForm,
    scale: float,
    products: int,
    interrupted: bool,
) -> Outcome:
    watch, problem = run.watch, run.problem
    status = answer["status"]
    watch.moves = answer["branches"]
    if answer["x"] is not None:
        run.offer(answer["x"])
    ended = {"OPTIMAL": "completed", "INFEASIBLE": "completed"}
    reason = ended.get(status, "time" if watch.time_left <= 0.01 else "iterations")
    if interrupted or run.reason:
        reason = "interrupted" if interrupted else run.reason
    words = [] if status == "OPTIMAL" else [f"CP-SAT: {answer['words'] or status}"]
    if math.isfinite(watch.limits.no_improvement):
        words.append("CP-SAT cannot follow: no improvement")
    stats = watch.stats(
        reason, "; ".join(words), conflicts=answer["conflicts"], columns=len(form.c)
    )
    if status == "MODEL_INVALID":
        return Outcome(None, Status.FAILED, stats)
    if status == "INFEASIBLE":
        return Outcome(None, Status.INFEASIBLE, stats)
    bound = None
    # without an objective to speak of, or before the search began, it is -2**63 or so; before the
    # model has been read it is 0, which bounds nothing
    unread = answer["bound"] == 0.0 and status != "OPTIMAL"
    if not unread and math.isfinite(answer["bound"]) and abs(answer["bound"]) <= 2.0**52:
        bound = scale * form.bound(answer["bound"]) + problem.offset
        bound -= 4e-16 * (abs(problem.offset) + abs(bound))
    if run.x is None:
        return Outcome(None, Status.NO_INCUMBENT, stats, bound)
    proven = bound is not None and run.energy - bound <= _PROOF * scale * (1 + 0.1 * products)
    optimal = proven and status == "OPTIMAL"
    return Outcome(run.x, Status.OPTIMAL if optimal else Status.FEASIBLE, stats, bound)
