"""Free-format MPS text, read strictly: what is not plainly one problem is refused, with its line.

Sections in this order: NAME and OBJSENSE, ROWS, COLUMNS, RHS, RANGES, BOUNDS, QUADOBJ (the upper
triangle of H in 1/2 x'Hx) or QMATRIX (all of H), ENDATA. Names hold no spaces. The first N row is
the objective, others are ignored; the objective's right-hand side is minus its constant. Integer
columns between markers are binary unless BOUNDS says more about them, as in CPLEX and HiGHS.
"""

from __future__ import annotations

import math
from pathlib import Path

from optiprune.problems.errors import FileFormatError

from .text_model import Row, TextModel

__all__ = ["parse_mps"]

_ORDER = ("ROWS", "COLUMNS", "RHS", "RANGES", "BOUNDS", "QUADOBJ", "QMATRIX", "ENDATA")
_BOUNDS_WITH_VALUE = frozenset({"LO", "UP", "FX", "LI", "UI"})
_BOUNDS_WITHOUT = frozenset({"FR", "MI", "PL", "BV"})


def parse_mps(path: Path, text: str) -> TextModel:
    """The model of MPS text. Raises `FileFormatError` with path and line."""
    parser = _Parser(path)
    for number, raw in enumerate(text.split("\n"), 1):
        parser.line = number
        if raw.strip() and not raw.startswith("*"):
            parser.read(raw)
    if parser.section != "ENDATA":
        raise parser.error("the file does not end with ENDATA (truncated?)")
    parser.finish()
    return parser.model


class _Parser:
    def __init__(self, path: Path) -> None:
        self.model = TextModel(path)
        self.line = 0
        self.section = ""
        self.done = -1  # index of the last section in the order above
        self.integer = False  # between markers
        self.set_name: str | None = None  # of the section's right-hand sides, ranges or bounds
        self.objective: str | None = None
        self.kinds: dict[str, str] = {}  # N, L, G or E of each row by name
        self.rows: dict[str, Row] = {}
        self.right: dict[str, float] = {}
        self.ranges: dict[str, float] = {}
        self.bounded: set[tuple[int, str]] = set()
        self.once: set[tuple[str, str, str]] = set()
        self.matrix: dict[tuple[int, int], tuple[float, int]] = {}

    def error(self, message: str) -> FileFormatError:
        return self.model.error(self.line, message)

    def read(self, raw: str) -> None:
        """One line that is neither blank nor a comment."""
        if self.section == "ENDATA":
            raise self.error("content after ENDATA")
        tokens = raw.split()
        if not raw[0].isspace():
            self.heading(tokens, raw)
        elif self.section == "ROWS":
            self.row(tokens)
        elif self.section == "COLUMNS":
            self.entries(tokens)
        elif self.section in ("RHS", "RANGES"):
            self.sides(tokens)
        elif self.section == "BOUNDS":
            self.bound(tokens, raw)
        elif self.section in ("QUADOBJ", "QMATRIX"):
            self.product(tokens)
        elif self.section == "OBJSENSE" and len(tokens) == 1:
            self.objective_sense(tokens[0])
        else:
            raise self.error(f"unexpected line {raw.strip()[:40]!r}")

    def heading(self, tokens: list[str], raw: str) -> None:
        head = tokens[0].upper()
        if head in ("NAME", "OBJSENSE") and self.done < 0:
            self.section = head
            if head == "OBJSENSE" and len(tokens) > 1:
                self.objective_sense(" ".join(tokens[1:]))
            return
        if head not in _ORDER or len(tokens) > 1:
            raise self.error(f"unknown section {raw.strip()[:40]!r}")
        if _ORDER.index(head) <= self.done:
            raise self.error(f"the section {head} is out of order")
        if head != "ROWS" and self.done < 0:
            raise self.error(f"{head} before ROWS")
        self.done, self.section, self.set_name = _ORDER.index(head), head, None

    def objective_sense(self, word: str) -> None:
        if word.upper() not in ("MIN", "MINIMIZE", "MAX", "MAXIMIZE"):
            raise self.error(f"OBJSENSE is MIN or MAX, not {word[:40]!r}")
        self.model.maximise = word.upper().startswith("MAX")

    def row(self, tokens: list[str]) -> None:
        if len(tokens) != 2 or tokens[0].upper() not in ("N", "L", "G", "E"):
            raise self.error("expected a row as 'N|L|G|E name'")
        kind, name = tokens[0].upper(), tokens[1]
        if name in self.kinds:
            raise self.error(f"the row {name!r} is given twice")
        self.kinds[name] = kind
        if kind != "N":
            self.rows[name] = Row(self.line)
        elif self.objective is None:
            self.objective = name

    def entries(self, tokens: list[str]) -> None:
        """``column row value [row value]``, or a marker."""
        if len(tokens) == 3 and tokens[1].strip("'\"") == "MARKER":
            kind = tokens[2].strip("'\"")
            if kind not in ("INTORG", "INTEND"):
                raise self.error(f"unknown marker {tokens[2]!r}")
            if self.integer == (kind == "INTORG"):
                raise self.error(f"the marker {kind} does not match the one before it")
            self.integer = not self.integer
            return
        i = self.model.find(tokens[0])
        if i is None:
            i = self.model.column(tokens[0], self.line)
            self.model.columns[i].integer = self.integer
        elif i != len(self.model.columns) - 1:
            raise self.error(f"the column {tokens[0]!r} is not in one piece")
        for name, value in self.pairs(tokens):
            if name in self.rows:
                self.rows[name].coefficients[i] = value
            elif name == self.objective:
                self.model.linear[i] = value

    def sides(self, tokens: list[str]) -> None:
        """``[set] row value [row value]`` of right-hand sides or ranges."""
        if len(tokens) % 2 == 0:  # the name of the set may be left out
            tokens = ["", *tokens]
        self.same_set(tokens[0])
        for name, value in self.pairs(tokens):
            if self.section == "RHS":
                self.right[name] = value
            elif self.kinds[name] == "N":
                raise self.error(f"{name!r} is no constraint and takes no range")
            else:
                self.ranges[name] = value

    def pairs(self, tokens: list[str]) -> list[tuple[str, float]]:
        if len(tokens) not in (3, 5):
            raise self.error(f"expected 'name row value' in {self.section}")
        out = []
        for name, value in zip(tokens[1::2], tokens[2::2], strict=True):
            if name not in self.kinds:
                raise self.error(f"unknown row {name!r}")
            self.only(tokens[0], name)
            out.append((name, self.number(value)))
        return out

    def same_set(self, name: str) -> None:
        if self.set_name not in (None, name):
            raise self.error(f"a second set {name!r} in {self.section}; only one can be read")
        self.set_name = name

    def bound(self, tokens: list[str], raw: str) -> None:
        kind = tokens[0].upper()
        want = 4 if kind in _BOUNDS_WITH_VALUE else 3
        if kind not in _BOUNDS_WITH_VALUE | _BOUNDS_WITHOUT or len(tokens) != want:
            raise self.error(f"not a bound: {raw.strip()[:40]!r}")
        self.same_set(tokens[1])
        i = self.known(tokens[2])
        column = self.model.columns[i]
        value = self.number(tokens[3], infinite=True) if want == 4 else math.inf
        low = high = None
        if kind in ("UP", "UI", "PL"):
            high = value
        elif kind in ("LO", "LI"):
            low = value
        elif kind == "MI":
            low = -math.inf
        else:
            low, high = {"FX": (value, value), "FR": (-math.inf, math.inf), "BV": (0.0, 1.0)}[kind]
        column.integer = column.integer or kind in ("BV", "LI", "UI")
        for side, limit in (("low", low), ("high", high)):
            if limit is None:
                continue
            if (i, side) in self.bounded:
                raise self.error(f"a bound of {tokens[2]!r} is given twice")
            self.bounded.add((i, side))
            setattr(column, side, limit)

    def product(self, tokens: list[str]) -> None:
        if len(tokens) != 3:
            raise self.error("expected 'column column value'")
        i, j = self.known(tokens[0]), self.known(tokens[1])
        first, second = tokens[:2] if self.section == "QMATRIX" else sorted(tokens[:2])
        self.only(first, second)
        value = self.number(tokens[2])
        if self.section == "QUADOBJ":
            self.model.add_product(i, j, value / 2 if i == j else value)
        else:
            self.matrix[i, j] = value, self.line
            self.model.add_product(i, j, value / 2)

    def known(self, name: str) -> int:
        i = self.model.find(name)
        if i is None:
            raise self.error(f"unknown column {name!r}")
        return i

    def only(self, first: str, second: str) -> None:
        key = (self.section, first, second)
        if key in self.once:
            raise self.error(f"{first} {second} is given twice in {self.section}".lstrip())
        self.once.add(key)

    def number(self, token: str, *, infinite: bool = False) -> float:
        try:
            value = float(token) if "_" not in token else math.nan
        except ValueError:
            value = math.nan
        if math.isnan(value) or (math.isinf(value) and not infinite):
            raise self.error(f"{token[:40]!r} is not a finite number")
        return value

    def finish(self) -> None:
        """What is known only once all sections are read."""
        if self.objective is None:
            raise self.error("there is no objective (an N row)")
        if self.integer:
            raise self.error("a marker INTORG without its INTEND")
        for (i, j), (value, line) in self.matrix.items():
            if self.matrix.get((j, i), (None, 0))[0] != value:
                names = f"{self.model.columns[i].name} {self.model.columns[j].name}"
                raise self.model.error(line, f"QMATRIX is not symmetric at {names}")
        self.model.offset = -self.right.get(self.objective, 0.0)
        for i, column in enumerate(self.model.columns):
            column.binary = column.integer and not {(i, "low"), (i, "high")} & self.bounded
        for name, row in self.rows.items():
            kind, right, span = self.kinds[name], self.right.get(name, 0.0), self.ranges.get(name)
            row.low = -math.inf if kind == "L" else right
            row.high = math.inf if kind == "G" else right
            if span is not None:
                # of an equation, the sign says on which side of it the range lies
                if kind == "L" or (kind == "E" and span < 0):
                    row.low = right - abs(span)
                else:
                    row.high = right + abs(span)
            self.model.rows.append(row)
