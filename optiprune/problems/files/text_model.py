"""What LP and MPS text says, before it is a problem: columns, objective, rows, with their lines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import FileFormatError, ProblemError
from optiprune.problems.exchange.classify import from_rows
from optiprune.problems.matrix import frozen

from .limits import check_memory, check_size, located

__all__ = ["Column", "Row", "TextModel"]


@dataclass(slots=True)
class Column:
    """A variable; ``line`` is where it first appears, ``low`` and ``high`` None until given."""

    name: str
    line: int
    integer: bool = False
    binary: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def is_binary(self) -> bool:
        default = 1.0 if self.binary else math.inf
        low = 0.0 if self.low is None else self.low
        high = default if self.high is None else self.high
        return (self.integer or self.binary) and low == 0 and high == 1


@dataclass(slots=True)
class Row:
    """``low <= sum of coefficients times columns <= high``."""

    line: int
    low: float = -math.inf
    high: float = math.inf
    coefficients: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class TextModel:
    """A quadratic model with linear rows; ``products`` are the coefficients of x_i x_j, i <= j."""

    path: Path
    maximise: bool = False
    offset: float = 0.0
    columns: list[Column] = field(default_factory=list)
    linear: dict[int, float] = field(default_factory=dict)
    products: dict[tuple[int, int], float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    _at: dict[str, int] = field(default_factory=dict)

    def column(self, name: str, line: int) -> int:
        """The index of a variable, which is new if the name is."""
        i = self._at.setdefault(name, len(self.columns))
        if i == len(self.columns):
            self.columns.append(Column(name, line))
        return i

    def find(self, name: str) -> int | None:
        return self._at.get(name)

    def add_product(self, i: int, j: int, value: float) -> None:
        """Add ``value x_i x_j`` to the objective."""
        key = (i, j) if i <= j else (j, i)
        self.products[key] = self.products.get(key, 0.0) + value

    def error(self, line: int | None, message: str) -> FileFormatError:
        return located(self.path, line, message)

    def problem(self, max_n: int) -> QUBO | CardinalityQP | BudgetQP:
        """The narrowest problem that fits; a maximised objective is negated.

        Raises `FileFormatError` for a variable that is not binary, a model without variables, one
        that is too large, and what makes no problem.
        """
        n, m = len(self.columns), len(self.rows)
        if n == 0:
            raise self.error(None, "the model has no variables")
        for column in self.columns:
            if not column.is_binary:
                raise self.error(
                    column.line,
                    f"variable {column.name!r} is not binary; linearised and mixed models cannot "
                    "be read back, write .npz to keep a problem",
                )
        first_above = self.columns[max(0, min(n - 1, max_n))]
        check_size(self.path, first_above.line, n, max_n)
        check_memory(self.path, None, 8 * (3 * n * n + 2 * m * n), f"{n} variables and {m} rows")
        to = _variable_order([column.name for column in self.columns])
        sign = -1.0 if self.maximise else 1.0
        linear, q, A = np.zeros(n), np.zeros((n, n)), np.zeros((m, n))
        for i, value in self.linear.items():
            linear[to[i]] = sign * value
        for (i, j), value in self.products.items():
            q[to[i], to[j]] = sign * value if i == j else sign * value / 2
            q[to[j], to[i]] = q[to[i], to[j]]
        for r, row in enumerate(self.rows):
            for i, value in row.coefficients.items():
                A[r, to[i]] = value
        low = np.array([row.low for row in self.rows], dtype=np.float64)
        high = np.array([row.high for row in self.rows], dtype=np.float64)
        try:
            return from_rows(frozen(q), linear, sign * self.offset, A, low, high)
        except ProblemError as e:
            raise self.error(None, str(e)) from None


def _variable_order(names: list[str]) -> npt.NDArray[np.int64]:
    """The problem's index of each column.

    An LP file lists terms that are not zero, so its columns come in the order of appearance; our
    own names say which variable is which.
    """
    n = len(names)
    numbers = [int(s[1:]) if re.fullmatch(r"x\d{1,9}", s) else -1 for s in names]
    if sorted(numbers) != list(range(n)):
        return np.arange(n)
    return np.array(numbers, dtype=np.int64)
