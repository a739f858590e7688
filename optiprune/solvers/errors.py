"""Errors raised by solvers, the registry and the check of solutions."""

from __future__ import annotations

__all__ = [
    "BackendMissingError",
    "InvalidSolutionError",
    "SolverError",
    "SolverOptionError",
    "UnknownSolverError",
    "UnsupportedProblemError",
]


class SolverError(Exception):
    """Base of every error of the solver layer."""


class UnsupportedProblemError(SolverError, TypeError):
    """The solver cannot take this problem; the message names the transform that would help."""


class UnknownSolverError(SolverError, LookupError):
    """No solver of that name; the message lists the registered ones."""


class SolverOptionError(SolverError, ValueError):
    """A hyperparameter does not exist or has a bad value; the message lists the valid ones."""


class BackendMissingError(SolverError, ImportError):
    """The package behind an adapter is not installed; the message says how to install it."""


class InvalidSolutionError(SolverError, ValueError):
    """A solver returned something that is not what it claims: shape, feasibility or energy."""
