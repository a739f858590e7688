"""Size limits for files that declare how large they are: checked before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from optiprune.problems.errors import FileFormatError

__all__ = ["MAX_N", "check_memory", "check_size", "located"]

MAX_N = 50_000
"""Largest number of variables that readers accept unless told otherwise."""

_MAX_MESSAGE = 500


def located(path: Path, line: int | None, message: str) -> FileFormatError:
    """The error for a fault in a file: ``path:line: message`` (line counts from 1)."""
    if len(message) > _MAX_MESSAGE:  # a file of garbage may hold very long names
        message = message[:_MAX_MESSAGE] + "..."
    return FileFormatError(f"{path}:{line}: {message}" if line else f"{path}: {message}")


def check_size(path: Path, line: int | None, n: int, max_n: int) -> None:
    """Refuse a dense n x n problem above ``max_n``, or one that this machine cannot hold."""
    if n > max_n:
        raise located(
            path, line, f"n = {n} is above the limit of {max_n}; pass max_n={n} to allow it"
        )
    # the matrix, its symmetrised copy and a temporary
    check_memory(path, line, 3 * 8 * n * n, f"a dense problem with n = {n}")


def check_memory(path: Path, line: int | None, need: int, what: str) -> None:
    """Refuse what needs more bytes than this machine has."""
    memory = _physical_memory()
    if memory is not None and need > memory:
        raise located(
            path,
            line,
            f"{what} needs {need / 2**30:.3g} GiB, and this machine has {memory / 2**30:.3g} GiB",
        )


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not known on this platform
        return None
