"""Classes of indices that can only leave a model together, by union-find.

A *unit* is one index of one dimension of one parameter or buffer: a row of a weight, an entry of a
bias. Operations merge units: an output channel of a layer with the entry of the norm behind it and
the input column of the next layer. What is left at the end, a class, leaves the model as a whole
or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FIXED", "KERNEL", "Barrier", "Ids", "Units"]

Ids = npt.NDArray[np.int64]
# the unit of everything that can never leave: rows of zeros that a padding adds
FIXED = 0
# why the dimensions of a kernel stay: every convolution has them, no list needs them
KERNEL = "the size of a kernel"


@dataclass(frozen=True, slots=True)
class Barrier:
    """Why units have to stay.

    Attributes
    ----------
    operation : as the traced graph names it (``aten.roll.default``), or what the model does there
    reason : in words
    module : the innermost module that was running, "" at the top
    line : ``file.py:12`` in the model's source, "" where it is not known
    """

    operation: str
    reason: str
    module: str = ""
    line: str = ""

    def __str__(self) -> str:
        at = ", ".join(x for x in (self.module, self.line) if x)
        return f"{self.operation}: {self.reason}" + (f" ({at})" if at else "")


class Units:
    """Union-find over units, with the barriers that hold some of the classes."""

    def __init__(self) -> None:
        self._parent: list[int] = [FIXED]
        self._barriers: dict[int, Barrier] = {
            FIXED: Barrier("constant", "it is no unit of the model")
        }

    def new(self, shape: tuple[int, ...]) -> Ids:
        """As many units as ``shape`` holds, each its own class."""
        first = len(self._parent)
        count = int(np.prod(shape, dtype=np.int64))
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64).reshape(shape)

    def find(self, unit: int) -> int:
        parent = self._parent
        root = unit
        while parent[root] != root:
            root = parent[root]
        while parent[unit] != root:
            parent[unit], unit = root, parent[unit]
        return root

    def roots(self, ids: Ids) -> Ids:
        """The class of every unit, by the smallest of its units."""
        unique, inverse = np.unique(ids, return_inverse=True)
        roots = np.array([self.find(int(u)) for u in unique], dtype=np.int64)
        return roots[inverse].reshape(ids.shape)

    def merge(self, a: Ids, b: Ids) -> None:
        """Pairwise, arrays of one shape after broadcasting."""
        a, b = np.broadcast_arrays(a, b)
        for x, y in np.unique(np.stack([a.ravel(), b.ravel()], 1), axis=0).tolist():
            x, y = self.find(x), self.find(y)
            if x == y:
                continue
            x, y = min(x, y), max(x, y)
            self._parent[y] = x
            barrier = self._barriers.pop(y, None)
            if barrier is not None:
                self._barriers.setdefault(x, barrier)

    def merge_along(self, ids: Ids, axis: int) -> Ids:
        """One class of all units along ``axis``; the array without that axis."""
        first = np.take(ids, 0, axis)
        self.merge(ids, np.expand_dims(first, axis))
        return first

    def hold(self, ids: Ids, barrier: Barrier) -> None:
        """Their classes stay; the first barrier of a class is the one that is told."""
        for root in np.unique(self.roots(ids)).tolist():
            self._barriers.setdefault(root, barrier)

    def barrier(self, unit: int) -> Barrier | None:
        return self._barriers.get(self.find(unit))
