"""One solve by Pyomo: call, catch what it logs, read the answer without believing it."""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.solvers.base import Watch
from optiprune.solvers.result import Status

from .interruptible import run_interruptible

__all__ = ["Answer", "call"]

# Pyomo redirects file descriptors while a solver runs: one solve at a time in a process.
_ONE_AT_A_TIME = threading.Lock()

# Pyomo's termination conditions: the reason that we report, and the proof that it may hold.
# A condition that is not listed is a failure, unless it comes with a feasible point.
_ENDINGS: dict[str, tuple[str, Status | None]] = {
    "optimal": ("completed", Status.OPTIMAL),
    "globallyOptimal": ("completed", Status.OPTIMAL),
    "locallyOptimal": ("completed", None),
    "feasible": ("completed", None),
    "infeasible": ("completed", Status.INFEASIBLE),
    # our models have bounded variables, so that unbounded is ruled out
    "infeasibleOrUnbounded": ("completed", Status.INFEASIBLE),
    "maxTimeLimit": ("time", None),
    "maxIterations": ("iterations", None),
    "maxEvaluations": ("iterations", None),
    "minFunctionValue": ("target", None),
    "noSolution": ("completed", None),
    "intermediateNonInteger": ("completed", None),
    "userInterrupt": ("interrupted", None),
    "resourceInterrupt": ("interrupted", None),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes
    ----------
    values : (n,) float64 values of ``model.x``, or None without a solution
    proof : OPTIMAL, INFEASIBLE or FAILED as claimed by the back end; None without a claim
    bound : the back end's lower bound on the objective, -inf without one
    """

    values: npt.NDArray[np.float64] | None
    proof: Status | None
    reason: str
    bound: float
    words: str


def call(
    solver: Any,
    model: Any,
    *,
    options: dict[str, Any],
    time_limit_s: float,
    warm_start: bool,
    is_highs: bool,
    watch: Watch,
) -> Answer:
    """Solve a model of `to_pyomo` and read ``model.x`` back."""
    from pyomo.common.log import LoggingIntercept

    solver.options.update(options)
    arguments: dict[str, Any] = {"load_solutions": False}
    if math.isfinite(time_limit_s):
        arguments["timelimit"] = time_limit_s
    if warm_start:
        _ask_for_warm_start(solver, arguments)
    log = io.StringIO()
    with _ONE_AT_A_TIME, LoggingIntercept(log, "pyomo"):
        try:
            results, interrupted = _solve(solver, model, arguments, is_highs, watch)
            values = _load(model, results)
        except Exception as e:  # every plugin has errors of its own; its words are passed on
            text = f"{type(e).__name__}: {e}"
            return Answer(None, Status.FAILED, "failed", -math.inf, text)
    condition = str(results.solver.termination_condition)
    reason, proof = _ENDINGS.get(condition, ("failed", Status.FAILED))
    words = condition
    detail = str(results.solver.get("termination_message", "") or "")
    if "locallyInfeasible" in detail:  # the older result type calls this infeasible
        reason, proof, words = "completed", None, "locally infeasible (no proof)"
    # what Pyomo says of every solution that is not optimal tells nothing new
    logged = [line for line in log.getvalue().splitlines() if "SolverResults object" not in line]
    if logged and proof is not Status.OPTIMAL:
        words = f"{words}; {logged[0].strip()}"
    if interrupted and proof is not Status.OPTIMAL:
        reason, proof = "interrupted", None
    elif proof is Status.FAILED and values is not None:
        proof = None  # a feasible point is a feasible point, whatever came after
    return Answer(values, proof, reason, _bound(results), words)


def _solve(
    solver: Any, model: Any, arguments: dict[str, Any], is_highs: bool, watch: Watch
) -> tuple[Any, bool]:
    """``(results, whether the user interrupted)``.

    Pyomo's HiGHS interfaces sit in C++ until it is done and lose the incumbent to Ctrl-C; the
    highspy object behind them can be cancelled. Other back ends handle the signal themselves
    (SCIP), or run as processes that get it too.
    """
    if not is_highs:
        return solver.solve(model, **arguments), False

    def cancel() -> None:
        stop = getattr(getattr(solver, "_solver_model", None), "cancelSolve", None)
        if stop is not None:
            stop()

    return run_interruptible(lambda: solver.solve(model, **arguments), cancel, watch)


def _ask_for_warm_start(solver: Any, arguments: dict[str, Any]) -> None:
    """Use the values on the model as a start, in whichever way the plugin offers."""
    config = getattr(solver, "config", None)
    if config is not None and "warmstart_discrete_vars" in config:
        config.warmstart_discrete_vars = True
    elif config is not None and "warmstart" in config:
        config.warmstart = True
    elif config is None and solver.warm_start_capable():
        arguments["warmstart"] = True


def _load(model: Any, results: Any) -> npt.NDArray[np.float64] | None:
    from pyomo.opt import SolverStatus

    if len(results.solution) == 0:
        return None
    if str(results.solver.status) not in ("ok", "warning", "aborted"):
        results.solver.status = SolverStatus.aborted  # Pyomo refuses to load from others
    for v in model.x.values():
        v.set_value(None)
    model.solutions.load_from(results)
    values = [v.value for v in model.x.values()]
    # a variable that occurs nowhere in the model gets no value: any will do
    return np.array([0.0 if v is None else float(v) for v in values])


def _bound(results: Any) -> float:
    try:
        bound = float(results.problem.lower_bound)
    except (TypeError, ValueError):
        return -math.inf
    return bound if math.isfinite(bound) else -math.inf
