"""How problems are solved: native heuristics and exact search, and adapters to other solvers.

>>> from optiprune import solvers
>>> solvers.get("annealing", sweeps=200).solve(problem, seed=0)  # doctest: +SKIP

This package imports `optiprune.problems` and never torch.
"""

if __name__ != "optiprune.solvers":
    raise ImportError(
        f"this package was imported as {__name__!r}; import it as 'optiprune.solvers' "
        "(a second import under another name makes second classes and poisons numba's cache)"
    )

from .adapters.relaxation import relaxation_bound
from .base import BaseSolver, Capabilities, Outcome, Solver, Watch
from .check import check_solution
from .errors import (
    BackendMissingError,
    InvalidSolutionError,
    SolverError,
    SolverOptionError,
    UnknownSolverError,
    UnsupportedProblemError,
)
from .lower_bound import LowerBound, bound
from .registry import from_table, get, names, options_of, register, solver_class, unregister
from .result import Solution, SolveStats, Status
from .stop import AnyOf, IterationLimit, NoImprovement, Stop, Target, TimeLimit

__all__ = [
    "AnyOf",
    "BackendMissingError",
    "BaseSolver",
    "Capabilities",
    "InvalidSolutionError",
    "IterationLimit",
    "LowerBound",
    "NoImprovement",
    "Outcome",
    "Solution",
    "SolveStats",
    "Solver",
    "SolverError",
    "SolverOptionError",
    "Status",
    "Stop",
    "Target",
    "TimeLimit",
    "UnknownSolverError",
    "UnsupportedProblemError",
    "Watch",
    "bound",
    "check_solution",
    "from_table",
    "get",
    "names",
    "options_of",
    "register",
    "relaxation_bound",
    "solver_class",
    "unregister",
]
