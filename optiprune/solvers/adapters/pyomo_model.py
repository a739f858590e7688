"""Any solver that Pyomo reaches: HiGHS, SCIP, Gurobi, CBC, GLPK and others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, Problem
from optiprune.problems.exchange import to_pyomo
from optiprune.problems.linearise import linearise
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError, UnsupportedProblemError
from optiprune.solvers.result import Status

from .pyomo_backends import Backend, backend_of, check_backend_options, solver_factory
from .pyomo_call import Answer, call
from .scaling import coefficient_scale, scaled, with_scaled_rows

__all__ = ["PyomoSolver"]

_BINARY = frozenset({QUBO, CardinalityQP, BudgetQP})
# A proof is believed up to this much of the largest coefficient (and, relatively, of the energy):
# the usual feasibility tolerance of the back ends is 1e-6.
_PROOF = 1e-5


@dataclass(frozen=True)
class PyomoSolver(BaseSolver):
    """A solver of Pyomo by its name there; proves optima of small problems.

    Answers are rounded to 0 and 1 and re-evaluated. OPTIMAL is claimed when the back end ends with
    a proof and its bound meets the recomputed energy.

    Parameters
    ----------
    solver : Pyomo's name: "highs" (highspy), "scip" (pyscipopt, or the executable), "gurobi", ...
    linearise : write products of binaries as linear rows: True, False, or "auto": for back ends
        that take no quadratic integer model (HiGHS, CBC, GLPK) and for SCIP, which is faster so
    method : "fortet" (a helper a product), "glover" (a helper a variable), or "auto"
    options : options of the back end by its own names, such as ``{"limits/gap": 0.01}`` for SCIP;
        unknown ones of HiGHS and SCIP are refused

    An `MIQP` needs a back end that takes quadratic integer models (SCIP, Gurobi, CPLEX; not HiGHS)
    and a finite M. Stop criteria: time; target, iterations (nodes) and no improvement where the
    back end has an option for them, which HiGHS and SCIP do (no improvement: SCIP only);
    ``stats.message`` names those that were not passed on.
    """

    name: ClassVar[str] = "pyomo"
    capabilities: ClassVar[Capabilities] = Capabilities(
        problems=_BINARY | {MIQP}, exact=True, keeps_time_limit=False
    )

    solver: str = "highs"
    linearise: bool | Literal["auto"] = "auto"
    method: Literal["auto", "fortet", "glover"] = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.linearise, bool) and self.linearise != "auto":
            raise SolverOptionError(
                f"linearise must be 'auto', True or False, got {self.linearise!r}"
            )
        if self.method not in ("auto", "fortet", "glover"):
            raise SolverOptionError(
                f"method must be 'auto', 'fortet' or 'glover', got {self.method!r}"
            )
        if not isinstance(self.solver, str) or not self.solver:
            raise SolverOptionError(f"solver must be a name, got {self.solver!r}")
        solver_factory(self.solver)
        if self.options:
            check_backend_options(self.solver, self.options)

    def require_support(self, problem: Problem) -> None:
        super().require_support(problem)
        backend = backend_of(self.solver)
        if isinstance(problem, MIQP):
            if not backend.miqp:
                raise UnsupportedProblemError(
                    f"'{self.solver}' takes no quadratic objective over integer variables; use "
                    "solver='scip' (or another MIQP solver), or the solvers 'local-search' and "
                    "'exhaustive'"
                )
            if self.linearise is True:
                raise UnsupportedProblemError(
                    "the products of an MIQP are continuous and cannot be linearised: linearise="
                    "'auto' or False"
                )
            if not np.isfinite(problem.M).all():
                raise UnsupportedProblemError(_suggest_bound(problem, self.solver))
        elif self.linearise is False and not backend.miqp:
            raise UnsupportedProblemError(
                f"'{self.solver}' takes no quadratic objective over integer variables; use "
                "linearise='auto' or True"
            )

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        used, solver = solver_factory(self.solver)
        if problem.n == 0:
            return Outcome(np.zeros(0, np.int8), Status.OPTIMAL, watch.stats("completed"))
        if watch.time_left <= 0:
            return Outcome(None, Status.NO_INCUMBENT, watch.stats("time"))
        backend = backend_of(self.solver)
        scale = coefficient_scale(problem)
        unit = with_scaled_rows(scaled(problem, scale))
        linear, method = self._form(unit, backend)
        model = to_pyomo(unit, linearised=linear, method=method)
        warm = x0 is not None and problem.is_feasible(x0)
        if warm and backend.warm_start:
            _set_start(model, unit, x0, linear, method)
        if watch.time_left <= 0:
            return Outcome(None, Status.NO_INCUMBENT, watch.stats("time"))
        options, ignored = self._limits(backend, seed, watch, problem.offset, scale)
        if warm and not backend.warm_start:
            ignored.append("warm start")  # BaseSolver keeps x0 all the same
        left = watch.time_left if math.isfinite(watch.limits.time_s) else math.inf
        answer = call(
            solver,
            model,
            options=options,
            time_limit_s=left,
            warm_start=warm and backend.warm_start,
            is_highs=used in ("highs", "appsi_highs"),
            watch=watch,
        )
        return _outcome(problem, answer, watch, scale, used, ignored)

    def _form(self, problem: Problem, backend: Backend) -> tuple[bool, Literal["fortet", "glover"]]:
        """Whether to linearise, and how."""
        if isinstance(problem, MIQP) or self.linearise is False:
            return False, "fortet"
        if self.linearise == "auto" and backend.linearisation is None:
            return False, "fortet"
        if self.method != "auto":
            return True, self.method
        if backend.linearisation in ("fortet", "glover"):
            return True, backend.linearisation
        assert isinstance(problem, QUBO | CardinalityQP | BudgetQP)
        products = int(np.count_nonzero(np.triu(problem.dense(), 1)))
        return True, "fortet" if products <= 2 * problem.n else "glover"

    def _limits(
        self,
        backend: Backend,
        seed: np.random.SeedSequence,
        watch: Watch,
        offset: float,
        scale: float,
    ) -> tuple[dict[str, Any], list[str]]:
        """The back end's options, and the names of what it has no option for."""
        options: dict[str, Any] = dict(backend.defaults)
        ignored = []
        limits = watch.limits
        wanted: list[tuple[str, str | None, Any]] = [
            ("seed", backend.seed, int(seed.generate_state(1)[0] >> 1))
        ]
        if backend.seconds is not None and math.isfinite(limits.time_s):
            options[backend.seconds] = watch.time_left
        if math.isfinite(limits.iterations):
            nodes = int(min(limits.iterations, 2**31 - 1))
            wanted.append(("iteration limit", backend.nodes, nodes))
        if limits.target > -math.inf:
            wanted.append(("target", backend.target, (limits.target - offset) / scale))
        if math.isfinite(limits.no_improvement):
            nodes = int(min(limits.no_improvement, 2**31 - 1))
            wanted.append(("no improvement", backend.stall, nodes))
        for what, option, value in wanted:
            if option is None:
                ignored.append(what)
            else:
                options[option] = value
        options.update(self.options)
        return options, ignored


def _outcome(
    problem: Any, answer: Answer, watch: Watch, scale: float, used: str, ignored: list[str]
) -> Outcome:
    parts = []
    if answer.proof is not Status.OPTIMAL:
        parts.append(f"{used}: {answer.words}")
    if ignored:
        parts.append(f"{used} has no option for: {', '.join(ignored)}")
    x = None
    if answer.values is not None:
        rounded = np.rint(answer.values)
        if (
            np.abs(answer.values - rounded).max() <= 1e-4
            and ((rounded == 0) | (rounded == 1)).all()
        ):
            x = rounded.astype(np.int8)
        else:
            parts.append("the back end's answer was not binary and was dropped")
    energy = math.inf
    if x is not None and problem.is_feasible(x):
        energy = problem.energy(x)
        watch.offer(energy)
    bound = None
    tolerance = _PROOF * scale + _PROOF * abs(energy - problem.offset)
    if answer.bound > -math.inf and answer.proof not in (Status.INFEASIBLE, Status.FAILED):
        # the back end's rows hold up to its tolerance only, and so does its bound
        slack = 1e-6 * scale * (1.0 + abs(answer.bound))
        bound = scale * answer.bound + problem.offset - slack
    stats = watch.stats(answer.reason, "; ".join(parts), backend=used)
    if x is None or energy == math.inf:
        claims = (Status.INFEASIBLE, Status.FAILED)
        status = answer.proof if answer.proof in claims and x is None else Status.NO_INCUMBENT
        return Outcome(None, status, stats, bound)
    proven = answer.proof is Status.OPTIMAL and bound is not None and energy - bound <= tolerance
    return Outcome(x, Status.OPTIMAL if proven else Status.FEASIBLE, stats, bound)


def _set_start(
    model: Any, problem: Any, x: npt.NDArray[np.int8] | None, linear: bool, method: Any
) -> None:
    """Write a feasible start on the model: x, and the helpers or weights that belong to it."""
    assert x is not None
    for i, v in enumerate(x.tolist()):
        model.x[i].set_value(v)
    if isinstance(problem, MIQP):
        for i, v in enumerate(problem.weights(x).tolist()):
            model.w[i].set_value(v)
    elif linear:
        helpers = linearise(problem, method=method).extend(x)[problem.n :]
        for i, v in enumerate(helpers.tolist()):
            model.y[i].set_value(v)


def _suggest_bound(problem: MIQP, solver: str) -> str:
    """Why an infinite M is refused, with a finite one that cuts off no optimum where there is one.

    The best weights on a support S solve H_SS w = b_S, so that ``|w| <= |b_S| / least eigenvalue of
    H_SS``; by interlacing the least eigenvalue of H is no larger, and |b_S| is at most the norm of
    the k largest |b|.
    """
    text = (
        f"'{solver}' needs a finite M (the rows -M x <= w <= M x hold it), but this MIQP has an "
        "infinite one"
    )
    eigenvalues = np.linalg.eigvalsh(problem.dense())
    least, most = (float(eigenvalues[0]), float(eigenvalues[-1])) if problem.n else (0.0, 0.0)
    if least > 1e-10 * max(most, 1e-300):
        norm = float(np.sqrt(np.sort(problem.b.astype(np.float64) ** 2)[::-1][: problem.k].sum()))
        return f"{text}; M = {1.01 * norm / least:.6g} is valid here (no optimal weight is larger)"
    return f"{text}; H is singular, so that no M is valid in general: add a ridge to H or choose M"
