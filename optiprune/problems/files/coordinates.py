"""Entries ``i j value`` of a symmetric matrix, one a line, numbered from 1."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from .text_lines import TextLines

__all__ = ["read_entries"]


def read_entries(
    lines: TextLines, n: int, count: int, what: str, *, diagonal: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read exactly ``count`` lines ``i j value``.

    Returns
    -------
    row, col, value
        Each of shape (count,), numbered from 0, row <= col.

    Raises
    ------
    FileFormatError
        On a missing line, a wrong number of fields, an index outside 1 .. n, i = j where
        ``diagonal`` is False, a value that is not finite, or a pair given twice (in either order).
    """
    row, col, value, at = array("q"), array("q"), array("d"), array("q")
    for e in range(count):
        tokens = lines.next(f"{what} {e + 1} of {count}")
        if len(tokens) != 3:
            raise lines.error(f"expected 'i j value', got {len(tokens)} fields")
        left, right, v = tokens
        # plain digits inline: a large instance has millions of lines
        i = int(left) if left.isdigit() and len(left) < 10 else 0
        j = int(right) if right.isdigit() and len(right) < 10 else 0
        if not (1 <= i <= n and 1 <= j <= n):
            i = lines.integer(left, "the first index", 1, n)
            j = lines.integer(right, "the second index", 1, n)
        if i == j and not diagonal:
            raise lines.error(f"a {what} joins vertex {i} to itself")
        row.append(i - 1)
        col.append(j - 1)
        value.append(lines.number(v, "the value"))
        at.append(lines.line)
    i_all, j_all = np.array(row, dtype=np.int64), np.array(col, dtype=np.int64)
    r, c = np.minimum(i_all, j_all), np.maximum(i_all, j_all)
    key = r * n + c
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    if again.size:
        # the earliest line in the file that repeats a pair
        first = int(order[again + 1].min())
        lines.line = at[first]
        raise lines.error(f"the pair {r[first] + 1} {c[first] + 1} is given more than once")
    return r, c, np.array(value, dtype=np.float64)
