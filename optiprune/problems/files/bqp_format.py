"""The sparse text format of the OR-Library's unconstrained binary quadratic instances.

::

    n nnz
    i j q          (nnz lines, 1 <= i, j <= n, each unordered pair at most once)

q is the entry Q_ij = Q_ji of a **symmetric** matrix, so that an off-diagonal line contributes
``2 q x_i x_j``. The OR-Library (Beasley 1998) and Palubeckis **maximise** ``x'Qx``; optiprune
minimises, so with the default ``sense="max"`` signs are turned on the way in and out, and a file of
ours is one that their programs read. A line that begins with # is a comment. A first line with one
number is the OR-Library's count of instances in the file, each with a header of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from optiprune.durable import replacing
from optiprune.problems.base import Problem
from optiprune.problems.binary import QUBO
from optiprune.problems.errors import ProblemError
from optiprune.problems.matrix import frozen

from .coordinates import read_entries
from .limits import MAX_N, check_size
from .text_lines import TextLines

__all__ = ["read_bqp", "write_bqp"]

Sense = Literal["max", "min"]


def read_bqp(
    path: str | os.PathLike[str],
    *,
    sense: Sense = "max",
    instance: int | None = None,
    max_n: int = MAX_N,
) -> QUBO:
    """Read a QUBO.

    Parameters
    ----------
    sense : "max" (the OR-Library's: the QUBO's energy is minus the file's value) or "min"
    instance : which instance of a file that holds several, from 1; needed only there
    max_n : refuse files that declare more variables

    Raises
    ------
    FileFormatError
        With path and line, for anything malformed, truncated or too large, and for several
        instances without a word on which.
    ProblemError
        For an unknown sense, or an instance that the file does not have.
    """
    sign = _sign(sense)
    source = Path(path)
    with TextLines(source) as lines:
        header = lines.next("the header 'n nnz'")
        count = 1
        several = len(header) == 1
        if several:
            count = lines.integer(header[0], "the number of instances", 1, 10_000)
            if instance is None and count > 1:
                raise lines.error(f"the file holds {count} instances; say which, 1 .. {count}")
            header = lines.next("the header 'n nnz'")
        instance = 1 if instance is None else instance
        if not 1 <= instance <= count:
            raise ProblemError(f"{source} holds {count} instances, not number {instance}")
        found = None
        for number in range(1, count + 1):
            if number > 1:
                header = lines.next(f"the header of instance {number} of {count}")
            if len(header) != 2:
                raise lines.error(f"expected the header 'n nnz', got {len(header)} fields")
            n = lines.integer(header[0], "n", 0)
            check_size(source, lines.line, n, max_n)
            nnz = lines.integer(header[1], "nnz", 0, n * (n + 1) // 2)
            entries = read_entries(lines, n, nnz, "entry", diagonal=True)
            if number == instance:
                found = n, entries
        lines.end()
    assert found is not None
    n, (row, col, value) = found
    q = np.zeros((n, n))
    q[row, col] = sign * value
    q[col, row] = q[row, col]
    return QUBO(frozen(q))


def write_bqp(problem: Problem, path: str | os.PathLike[str], *, sense: Sense = "max") -> None:
    """Write a QUBO; linear terms go to the diagonal (x_i**2 = x_i). Values round-trip exactly.

    Raises `ProblemError` for another problem type, or an offset, which the format cannot hold.
    """
    sign = _sign(sense)
    if not isinstance(problem, QUBO):
        raise ProblemError(
            f"the bqp format holds a QUBO, not a {type(problem).__name__}; "
            "write .npz, or to_penalty_qubo(problem).qubo"
        )
    if problem.offset != 0:
        raise ProblemError(
            f"the bqp format has no place for an offset ({problem.offset:g}); write .npz, or a "
            "QUBO without it"
        )
    q = np.triu(problem.dense(np.float64))
    with np.errstate(over="ignore"):
        np.fill_diagonal(q, problem.diagonal() + problem.linear)
    if not np.isfinite(q.diagonal()).all():
        i = int(np.flatnonzero(~np.isfinite(q.diagonal()))[0])
        raise ProblemError(
            f"Q[{i}, {i}] + linear[{i}] is too large for a number, and the bqp format has one "
            "place for both; write .npz"
        )
    row, col = np.nonzero(q)
    values = (sign * q[row, col]).tolist()
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii") as f:
        f.write(f"{problem.n} {len(values)}\n")
        f.writelines(
            f"{i + 1} {j + 1} {_text(v)}\n"
            for i, j, v in zip(row.tolist(), col.tolist(), values, strict=True)
        )


def _text(v: float) -> str:
    return str(int(v)) if v.is_integer() and abs(v) < 2**53 else repr(v)


def _sign(sense: str) -> float:
    if sense not in ("max", "min"):
        raise ProblemError(f"unknown sense {sense!r}; valid: 'max', 'min'")
    return -1.0 if sense == "max" else 1.0
