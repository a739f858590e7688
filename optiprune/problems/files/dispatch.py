"""One function to read any problem file, one to write it, by suffix or by name of the format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from optiprune.problems.base import Problem
from optiprune.problems.errors import ProblemError

from .bqp_format import read_bqp, write_bqp
from .limits import MAX_N
from .mps_lp import read_lp, read_mps, write_lp, write_mps
from .npz_format import read_npz, write_npz
from .rudy_format import read_rudy, write_rudy

__all__ = ["FORMATS", "read_problem", "write_problem"]

FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "npz": (".npz",),
        "bqp": (".bqp", ".sparse"),
        "rudy": (".rudy", ".mc", ".rud"),
        "lp": (".lp",),
        "mps": (".mps",),
    }
)
"""Suffixes of each format's files."""

_READERS = {
    "npz": read_npz,
    "bqp": read_bqp,
    "rudy": read_rudy,
    "lp": read_lp,
    "mps": read_mps,
}
_WRITERS: dict[str, Callable[[Problem, str | os.PathLike[str]], None]] = {
    "npz": write_npz,
    "bqp": write_bqp,
    "rudy": write_rudy,
    "lp": write_lp,
    "mps": write_mps,
}


def read_problem(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    max_n: int = MAX_N,
    instance: int | None = None,
) -> Problem:
    """Read a problem file.

    Parameters
    ----------
    format : one of `FORMATS`, or None to go by the suffix
    max_n : refuse files that declare more variables, before memory is taken
    instance : which instance of a bqp file that holds several, from 1

    A bqp file is read as the OR-Library means it: maximised (`read_bqp` has the option).

    Raises
    ------
    FileFormatError
        The file is malformed, truncated or too large; the message has path and line.
    ProblemError
        Unknown format or suffix, and the message lists the valid ones; an instance of another
        format, or one that the file does not have.
    OSError
        The file cannot be opened.
    """
    name = _format(path, format)
    if instance is None:
        return _READERS[name](path, max_n=max_n)
    if name != "bqp":
        raise ProblemError(f"a {name} file holds one problem; instance is for bqp files")
    return read_bqp(path, max_n=max_n, instance=instance)


def write_problem(
    problem: Problem,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
) -> None:
    """Write a problem file, whole or not at all; the options are those of `read_problem`.

    npz holds every problem; bqp a QUBO without offset; rudy a max-cut; lp and mps binary problems
    with a quadratic objective (lp an MIQP too). Raises `ProblemError` for what a format cannot
    hold.
    """
    _WRITERS[_format(path, format)](problem, path)


def _format(path: str | os.PathLike[str], wanted: str | None) -> str:
    known = ", ".join(f"{name} ({' '.join(suffixes)})" for name, suffixes in FORMATS.items())
    if wanted is not None:
        if wanted not in FORMATS:
            raise ProblemError(f"unknown format {wanted!r}; valid: {known}")
        return wanted
    suffix = Path(path).suffix.lower()
    for name, suffixes in FORMATS.items():
        if suffix in suffixes:
            return name
    raise ProblemError(
        f"cannot tell the format of {os.fspath(path)!r} from its suffix {suffix!r}; "
        f"give format=, one of: {known}"
    )
