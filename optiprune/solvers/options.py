"""Checks of hyperparameters and stop criteria that several solvers share."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

from .errors import SolverOptionError

__all__ = ["NEVER", "check_whole", "whole"]

# more steps than any run comes to, and an int64 to which a kernel can still add its own counts
NEVER = 1 << 62


def whole(what: str, value: Any, least: int) -> int:
    """``value`` as an int, capped at `NEVER`; a float is accepted when it is a whole number.

    Raises
    ------
    SolverOptionError
        For anything else (a bool and NaN included), and below ``least``.
    """
    # Python's bool is an Integral, numpy's is not
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not (isinstance(value, numbers.Integral) or float(value).is_integer()):
        raise SolverOptionError(f"{what} must be a whole number, got {value!r}")
    if value < least:
        raise SolverOptionError(f"{what} must be >= {least}, got {value!r}")
    return min(int(value), NEVER)


def check_whole(solver: Any, **least: int) -> None:
    """Apply `whole` to the named fields of a frozen dataclass; None stays where it is the default.

    For a ``__post_init__``. Raises `SolverOptionError`.
    """
    for field in dataclasses.fields(solver):
        value = getattr(solver, field.name)
        if field.name in least and not (value is None and field.default is None):
            object.__setattr__(solver, field.name, whole(field.name, value, least[field.name]))
