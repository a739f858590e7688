"""Any dimod sampler: D-Wave's classical samplers, annealers, and what others wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import (
    QUBO,
    BudgetQP,
    CardinalityQP,
    InfeasibleProblemError,
    QuadraticProblem,
)
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import check_whole
from optiprune.solvers.result import Status

from .dimod_form import SamplerForm, is_exact
from .dimod_parameters import check_parameters, has_parameter, load_sampler, time_parameter
from .dimod_samples import best_samples
from .interruptible import run_interruptible
from .scaling import coefficient_scale, scaled

__all__ = ["DimodSampler"]

_Bits = npt.NDArray[np.int8]


@dataclass(frozen=True)
class DimodSampler(BaseSolver):
    """A dimod sampler, given by import path or as an object.

    A QUBO is handed over as a BQM. A CardinalityQP or BudgetQP becomes a QUBO with penalties whose
    minimisers are the optima (`optiprune.problems.to_penalty_qubo`); infeasible samples are
    repaired. A sampler for constrained models (one with ``sample_cqm``) gets the constraints as
    they are. Constraints as penalties cost a sampler far more than solvers that keep them by their
    moves: 'annealing' and 'tabu' are the better choice for a fixed cardinality.

    OPTIMAL is claimed for dimod's ExactSolver and ExactCQMSolver alone; every other sampler's
    answer is FEASIBLE, however good it is.

    Parameters
    ----------
    sampler : "module:Class", made without arguments, or a sampler object
    parameters : keyword arguments of the sampler, such as ``{"num_sweeps": 1000}``; unknown ones
        are refused
    reads : samples to draw (``num_reads``), for samplers that have it
    penalty : coefficient of all penalty terms; computed if absent

    The seed, a feasible x0, a time limit and a target are passed on to samplers that take them
    (``seed``, ``initial_states``, ``time_limit`` or TabuSampler's ``timeout``,
    ``energy_threshold``); ``interrupt_function`` serves time limits and Ctrl-C.
    ``stats.message`` names criteria that the sampler cannot follow. With the same seed TabuSampler
    may differ between runs, since its restarts are limited by the clock.
    """

    name: ClassVar[str] = "dimod"
    capabilities: ClassVar[Capabilities] = Capabilities(
        problems=frozenset({QUBO, CardinalityQP, BudgetQP}), keeps_time_limit=False
    )

    sampler: Any = "dwave.samplers:SimulatedAnnealingSampler"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reads: int = 10
    penalty: float | None = None

    def __post_init__(self) -> None:
        check_whole(self, reads=1)
        if self.penalty is not None and not (math.isfinite(self.penalty) and self.penalty > 0):
            raise SolverOptionError(f"penalty must be positive and finite, got {self.penalty!r}")
        check_parameters(load_sampler(self.sampler), self.parameters)

    def _solve(
        self,
        problem: QuadraticProblem,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        sampler = load_sampler(self.sampler)
        if problem.n == 0:
            return Outcome(np.zeros(0, np.int8), Status.FEASIBLE, watch.stats("completed"))
        if watch.time_left <= 0:
            return Outcome(None, Status.NO_INCUMBENT, watch.stats("time"))
        scale = coefficient_scale(problem)
        unit = scaled(problem, scale)
        assert isinstance(unit, QuadraticProblem)
        try:
            form = SamplerForm.of(
                unit, sampler, None if self.penalty is None else self.penalty / scale
            )
        except InfeasibleProblemError as e:
            return Outcome(None, Status.INFEASIBLE, watch.stats("completed", str(e)))
        target = (watch.limits.target - problem.offset) / scale
        arguments, ignored = self._arguments(sampler, form, x0, seed, watch, target)
        stop = _StopFlag(watch)
        if has_parameter(sampler, "interrupt_function"):
            arguments["interrupt_function"] = stop
        sample_set, interrupted = run_interruptible(
            lambda: form.sample(sampler, arguments), stop.set, watch
        )
        reason = "completed"
        if interrupted:
            reason = "interrupted"
        elif stop.timed_out or watch.time_left <= 0:
            reason = "time"
        found = best_samples(problem, form, sample_set)
        watch.moves = found.samples
        if found.x is None:
            status = Status.INFEASIBLE if found.proves_infeasible(sampler) else Status.NO_INCUMBENT
        else:
            watch.offer(found.energy)
            status = Status.OPTIMAL if found.proves_optimal(sampler) else Status.FEASIBLE
            if found.energy <= watch.limits.target and "energy_threshold" in arguments:
                reason = "target"
        kind = type(sampler).__name__
        message = f"{kind} cannot follow: {', '.join(ignored)}" if ignored else ""
        stats = watch.stats(
            reason,
            message,
            sampler=kind,
            samples=found.samples,
            feasible_samples=found.feasible,
            repaired=found.repaired,
            slack_bits=form.n - problem.n,
        )
        bound = found.energy if status is Status.OPTIMAL else None
        return Outcome(found.x, status, stats, bound)

    def _arguments(
        self,
        sampler: Any,
        form: SamplerForm,
        x0: _Bits | None,
        seed: np.random.SeedSequence,
        watch: Watch,
        target: float,
    ) -> tuple[dict[str, Any], list[str]]:
        """Keyword arguments, and the names of the criteria that the sampler cannot follow."""
        arguments = dict(self.parameters)
        ignored = []
        if has_parameter(sampler, "seed"):
            arguments["seed"] = int(seed.generate_state(1)[0] >> 1)  # fits signed 32 bits too
        elif not is_exact(sampler):
            ignored.append("seed")
        if has_parameter(sampler, "num_reads"):
            arguments["num_reads"] = int(self.reads)
        if x0 is not None and has_parameter(sampler, "initial_states"):
            # one state for the first read; samplers draw the others at random
            arguments["initial_states"] = (form.extend(x0)[None, :], list(range(form.n)))
        limits = watch.limits
        if math.isfinite(limits.time_s):
            known = time_parameter(sampler)
            if known is not None:
                name, unit, per_read = known
                left = max(watch.time_left, 1e-3) * unit
                if per_read:
                    left = max(1, int(left / self.reads))
                arguments[name] = min(left, arguments.get(name, math.inf))
            elif not has_parameter(sampler, "interrupt_function"):
                ignored.append("time limit")
        if limits.target > -math.inf:
            if has_parameter(sampler, "energy_threshold"):
                # the sampler adds up energies in another order: do not miss the target by an ulp
                arguments["energy_threshold"] = target + 1e-12 * max(1.0, abs(target))
            else:
                ignored.append("target")
        if math.isfinite(limits.iterations):
            ignored.append("iteration limit")
        if math.isfinite(limits.no_improvement):
            ignored.append("no improvement")
        return arguments, ignored


class _StopFlag:
    """What ``interrupt_function`` answers: whether to stop now."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._set = False
        self.timed_out = False

    def set(self) -> None:
        self._set = True

    def __call__(self) -> bool:
        if self._watch.time_left <= 0:
            self.timed_out = True
        return self._set or self.timed_out
