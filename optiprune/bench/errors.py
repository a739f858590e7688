"""Errors of the bench."""

from __future__ import annotations

__all__ = ["BenchError"]


class BenchError(ValueError):
    """A suite, a solver list or a results folder that cannot be used; the message says why."""
