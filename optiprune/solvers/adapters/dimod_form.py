"""The model that a dimod sampler gets: a BQM, or a CQM where it takes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, InfeasibleProblemError, ProblemError, QuadraticProblem
from optiprune.problems.exchange import to_bqm, to_cqm
from optiprune.problems.penalty import PenaltyForm, to_penalty_qubo
from optiprune.problems.repair import repair
from optiprune.solvers.errors import UnsupportedProblemError

__all__ = ["SamplerForm", "is_exact"]

_Bits = npt.NDArray[np.int8]

# dimod's exact solvers hold all 2**n rows in memory
_EXACT_MAX_N = 20


def is_exact(sampler: Any) -> bool:
    """Whether the sampler enumerates every assignment: dimod's own exact solvers, no others."""
    import dimod

    return type(sampler) in (dimod.ExactSolver, dimod.ExactCQMSolver)


@dataclass(frozen=True, slots=True)
class SamplerForm:
    """A problem as a sampler gets it, and the way back.

    Attributes
    ----------
    problem : the problem, n variables
    penalty : its penalty form, or None where the sampler gets the constraints themselves
    """

    problem: QuadraticProblem
    penalty: PenaltyForm | None

    @classmethod
    def of(cls, problem: QuadraticProblem, sampler: Any, penalty: float | None) -> SamplerForm:
        """The form for this sampler.

        Raises
        ------
        InfeasibleProblemError
            If the budgets exclude every assignment.
        UnsupportedProblemError
            If the constraints have no penalty form, or an exact sampler would run out of memory.
        """
        constrained = not isinstance(problem, QUBO)
        takes_cqm = callable(getattr(sampler, "sample_cqm", None))
        takes_bqm = callable(getattr(sampler, "sample", None))
        if takes_cqm and (constrained or not takes_bqm):
            form = cls(problem, None)
        else:
            try:
                form = cls(problem, to_penalty_qubo(problem, penalty))
            except InfeasibleProblemError:
                raise
            except ProblemError as e:
                raise UnsupportedProblemError(
                    f"the constraints have no penalty form: {e}. Use 'highs' or 'pyomo', which "
                    "keep them as they are"
                ) from e
        if is_exact(sampler) and form.n > _EXACT_MAX_N:
            slack = form.n - problem.n
            extra = f" ({slack} of them slack bits of the budgets)" if slack else ""
            raise UnsupportedProblemError(
                f"{type(sampler).__name__} holds 2**n assignments in memory and is limited to "
                f"{_EXACT_MAX_N} variables here, got {form.n}{extra}; use 'exhaustive', 'highs', "
                "or another sampler"
            )
        return form

    @property
    def n(self) -> int:
        """Number of variables that the sampler sees."""
        return self.problem.n if self.penalty is None else self.penalty.n_extended

    def extend(self, x: _Bits) -> _Bits:
        """A start for the sampler from an assignment of the problem."""
        return x if self.penalty is None else self.penalty.extend(x)

    def repair(self, x: _Bits) -> _Bits:
        """A feasible assignment near x. Raises `ProblemError` if none is found."""
        return repair(self.problem, x)

    def sample(self, sampler: Any, arguments: dict[str, Any]) -> Any:
        """The sampler's sample set, computed to its end."""
        if self.penalty is None:
            sample_set = sampler.sample_cqm(to_cqm(self.problem), **arguments)
        else:
            sample_set = sampler.sample(to_bqm(self.penalty.qubo), **arguments)
        sample_set.resolve()  # remote samplers answer later
        return sample_set
