"""The rudy text format of max-cut instances (the G-set, Biq Mac).

::

    n m
    i j w          (m lines, 1 <= i, j <= n, i != j, each edge once)

Reading gives the QUBO that minimises minus the cut (`maxcut_qubo`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from optiprune.durable import replacing
from optiprune.problems.base import Problem
from optiprune.problems.binary import QUBO
from optiprune.problems.matrix import frozen
from optiprune.problems.maxcut import maxcut_qubo, maxcut_weights

from .coordinates import read_entries
from .limits import MAX_N, check_size
from .text_lines import TextLines

__all__ = ["read_rudy", "write_rudy"]


def read_rudy(path: str | os.PathLike[str], *, max_n: int = MAX_N) -> QUBO:
    """Read a max-cut instance; `cut_value` gives the cut of a solution.

    Raises `FileFormatError` with path and line for anything malformed, truncated or too large.
    """
    source = Path(path)
    with TextLines(source) as lines:
        header = lines.next("the header 'n m'")
        if len(header) != 2:
            raise lines.error(f"expected the header 'n m', got {len(header)} fields")
        n = lines.integer(header[0], "n", 0)
        check_size(source, lines.line, n, max_n)
        m = lines.integer(header[1], "m", 0, n * (n - 1) // 2)
        row, col, value = read_entries(lines, n, m, "edge", diagonal=False)
        lines.end()
    w = np.zeros((n, n))
    w[row, col] = value
    w[col, row] = value
    return maxcut_qubo(frozen(w))


def write_rudy(problem: Problem, path: str | os.PathLike[str]) -> None:
    """Write a max-cut QUBO. Raises `ProblemError` for a QUBO that is none (`maxcut_weights`)."""
    w = np.triu(maxcut_weights(problem), 1)
    row, col = np.nonzero(w)
    values = w[row, col].tolist()
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii") as f:
        f.write(f"{problem.n} {len(values)}\n")
        f.writelines(
            f"{i + 1} {j + 1} {int(v) if v.is_integer() and abs(v) < 2**53 else repr(v)}\n"
            for i, j, v in zip(row.tolist(), col.tolist(), values, strict=True)
        )
