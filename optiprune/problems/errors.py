"""Errors raised while a problem is built, converted or read."""

from __future__ import annotations

__all__ = ["FileFormatError", "InfeasibleProblemError", "ProblemError"]


class ProblemError(ValueError):
    """The data given do not describe a problem; the message says which value is wrong."""


class InfeasibleProblemError(ProblemError):
    """The constraints exclude every assignment, as far as construction can tell."""


class FileFormatError(ProblemError):
    """A problem file is malformed, truncated or too large; the message names file and line."""
