r"""LP text, read strictly: what is not plainly one problem is refused, with its line.

::

    minimize                       or min, minimum, maximize, max, maximum
     label: 2 a - b + [ a^2 - 4 a * b ] / 2 + 1
    subject to                     or st, s.t., such that
     label: a + b <= 1
     -1 <= a - b <= 1
    bounds
     0 <= a <= 1
    binary                         or bin, binaries; general, gen, integer ... with bounds [0, 1]
     a b
    end

Labels are optional. A line ``\ ...`` is a comment. Headings stand on lines of their own, and each
row and bound begins on a new line. Coefficients of a variable that is named twice add up. HiGHS's
own reader is not used: it takes ``x x y`` for x + y, the last of two brackets for the only one, and
keeps one of two terms of the same variable, each without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from .limits import located
from .text_model import Row, TextModel

__all__ = ["parse_lp"]

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_!\"#$%&(),;?@'`{}~][A-Za-z0-9_!\"#$%&(),;?@'`{}~.]*)"
    r"|(?P<compare><=|>=|=<|=>|<|>|=)"
    r"|(?P<mark>[-+*^/:\[\]])"
    r"|(?P<blank>\s+)",
    re.ASCII,
)
_SECTIONS = {
    **dict.fromkeys(("minimize", "minimum", "min"), "minimize"),
    **dict.fromkeys(("maximize", "maximum", "max"), "maximize"),
    **dict.fromkeys(("subject to", "such that", "st", "s.t."), "rows"),
    **dict.fromkeys(("bounds", "bound"), "bounds"),
    **dict.fromkeys(("binary", "binaries", "bin"), "binary"),
    **dict.fromkeys(("general", "generals", "gen", "integers", "integer"), "integer"),
    **dict.fromkeys(("semi-continuous", "semi"), "semi-continuous"),
    "end": "end",
}
_SENSE = {"<": -1, "<=": -1, "=<": -1, "=": 0, ">": 1, ">=": 1, "=>": 1}


class _Token(NamedTuple):
    kind: str  # number, infinity, name, compare, mark or section
    text: str
    line: int


def _tokens(path: Path, text: str) -> Iterator[_Token]:
    number = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.split("\\", 1)[0]
        heading = _SECTIONS.get(" ".join(line.lower().split()))
        if heading:
            yield _Token("section", heading, number)
            continue
        at = 0
        while at < len(line):
            match = _TOKEN.match(line, at)
            if match is None:
                raise located(path, number, f"unexpected character {line[at]!r}")
            kind, token, at = str(match.lastgroup), match.group(), match.end()
            if kind == "name" and token.lower() in ("inf", "infinity"):
                kind = "infinity"
            elif kind == "name" and token.lower() == "nan":
                raise located(path, number, "nan is no number")
            elif kind == "number" and not math.isfinite(float(token)):
                raise located(path, number, f"{token} is too large for a number")
            if kind != "blank":
                yield _Token(kind, token, number)
    yield _Token("section", "", number)  # the end of the text


def parse_lp(path: Path, text: str) -> TextModel:
    """The model of LP text. Raises `FileFormatError` with path and line."""
    return _Parser(path, text).model


class _Parser:
    """Recursive descent over the tokens, two of which are in sight: ``now`` and ``after``."""

    def __init__(self, path: Path, text: str) -> None:
        self.model = TextModel(path)
        self.source = _tokens(path, text)
        self.now = next(self.source)
        self.after = next(self.source, self.now)
        self.labels: set[str] = set()
        self.bounded: set[tuple[int, str]] = set()
        if self.now.kind != "section" or self.now.text not in ("minimize", "maximize"):
            self.fail("the file must start with 'minimize' or 'maximize'")
        self.model.maximise = self.take().text == "maximize"
        self.objective()
        self.sections()

    def fail(self, message: str, line: int | None = None) -> NoReturn:
        raise self.model.error(line or self.now.line, message)

    def take(self) -> _Token:
        """The present token, and on to the next one."""
        token = self.now
        self.now, self.after = self.after, next(self.source, self.after)
        return token

    def is_mark(self, *marks: str) -> bool:
        return self.now.kind == "mark" and self.now.text in marks

    def expect(self, text: str, message: str) -> None:
        if self.now.text != text:
            self.fail(f"{message}, not {self.show()}")
        self.take()

    def show(self) -> str:
        if self.now.kind != "section":
            return repr(self.now.text)
        return f"the section {self.now.text!r}" if self.now.text else "the end of the file"

    def sections(self) -> None:
        while True:
            heading = self.take()
            section = heading.text
            if section == "end":
                break
            if not section:
                self.fail("the file does not end with 'end' (truncated?)", heading.line)
            if section in ("minimize", "maximize"):
                self.fail("a second objective", heading.line)
            while self.now.kind != "section":
                if section == "rows":
                    self.row()
                elif section == "bounds":
                    self.bound()
                else:
                    self.integrality(section)
        if self.now.kind != "section" or self.now.text:
            self.fail("content after 'end'")

    def at_label(self) -> bool:
        return self.now.kind == "name" and self.after[:2] == ("mark", ":")

    def label(self) -> None:
        if self.at_label():
            if self.now.text in self.labels:
                self.fail(f"the name {self.now.text!r} is given twice")
            self.labels.add(self.take().text)
            self.take()

    def objective(self) -> None:
        self.label()
        self.model.offset, _ = self.terms(self.model.linear, products=True)
        if self.now.kind != "section":
            self.fail(f"{self.show()} cannot follow in an objective")

    def terms(self, into: dict[int, float], *, products: bool) -> tuple[float, int]:
        """Read ``3 a - b + 1``; variables are added to ``into``.

        Returns the sum of the constants, and how many there are.
        """
        constant, constants, first = 0.0, 0, True
        while True:
            sign = self.sign()
            if self.now.kind not in ("number", "infinity", "name") and not self.is_mark("["):
                if sign is not None:
                    self.fail(f"{self.show()} cannot follow a sign")
                return constant, constants
            if sign is None and not first:
                if self.at_label():
                    return constant, constants
                self.fail(f"a sign is missing before {self.show()}")
            factor, first = 1.0 if sign is None else sign, False
            if self.is_mark("["):
                if not products:
                    self.fail("products are allowed in the objective only")
                self.bracket(factor)
                continue
            if self.now.kind != "name":
                factor *= self.number()
                if self.now.kind != "name" or self.at_label():
                    constant += factor
                    constants += 1
                    continue
            name = self.take()
            i = self.model.column(name.text, name.line)
            into[i] = into.get(i, 0.0) + factor

    def bracket(self, sign: float) -> None:
        """Read ``[ 2 a^2 + 3 a * b ] / 2``."""
        self.take()
        first = True
        while not self.is_mark("]"):
            own = self.sign()
            if own is None and not first:
                missing = "a sign" if self.now.kind in ("number", "name") else "']'"
                self.fail(f"{missing} is missing before {self.show()}")
            value, first = sign * (1.0 if own is None else own), False
            if self.now.kind == "number":
                value *= self.number()
            i = self.variable("a product must have a variable here")
            if self.is_mark("^"):
                self.take()
                self.expect("2", "only the power 2 is known")
                j = i
            else:
                self.expect("*", "a term in brackets must be a product or a square")
                j = self.variable("a product must have a variable here")
            self.model.add_product(i, j, value / 2)
        self.take()
        for token in ("/", "2"):
            self.expect(token, "the bracket of an objective must be followed by '/ 2'")

    def sign(self) -> float | None:
        """One sign, or several that multiply, or None."""
        sign = None
        while self.is_mark("+", "-"):
            sign = (1.0 if sign is None else sign) * (-1.0 if self.take().text == "-" else 1.0)
        return sign

    def number(self, *, infinite: bool = False) -> float:
        if self.now.kind == "infinity":
            if not infinite:
                self.fail("infinity is allowed in bounds only")
            self.take()
            return math.inf
        if self.now.kind != "number":
            self.fail(f"expected a number, not {self.show()}")
        return float(self.take().text)

    def signed(self, *, infinite: bool = False) -> float:
        sign = self.sign()
        return (1.0 if sign is None else sign) * self.number(infinite=infinite)

    def variable(self, message: str) -> int:
        if self.now.kind != "name":
            self.fail(f"{message}, not {self.show()}")
        name = self.take()
        return self.model.column(name.text, name.line)

    def sense(self) -> int:
        """-1 for <=, 0 for =, 1 for >=."""
        if self.now.kind != "compare":
            self.fail(f"expected a comparison, not {self.show()}")
        return _SENSE[self.take().text]

    def line_ends(self, last: int) -> None:
        if self.now.kind != "section" and self.now.line == last:
            self.fail(f"{self.show()} cannot follow here; begin a new line")

    def row(self) -> None:
        row = Row(self.now.line)
        self.label()
        constant, constants = self.terms(row.coefficients, products=False)
        sense = self.sense()
        if constants > 1 or (constants and row.coefficients):
            self.fail("a constant left of a comparison; move it to the right", row.line)
        ranged = constants == 1
        if ranged:  # 1 <= a + b, and perhaps <= 2
            _limit(row, -sense, constant)
            _, constants = self.terms(row.coefficients, products=False)
            if constants or not row.coefficients:
                self.fail("a row needs variables on one side and a number on the other", row.line)
        if not ranged or self.now.kind == "compare":
            if ranged and (self.sense() != sense or sense == 0):
                self.fail("the comparisons of a range must both be <= or both be >=", row.line)
            last = self.now.line
            _limit(row, sense, self.signed())
            if self.now.kind == "compare":
                self.fail("a row has one comparison, or two with the variables between them")
            self.line_ends(last)
        self.model.rows.append(row)

    def bound(self) -> None:
        line = self.now.line
        if self.now.kind == "name":
            i = self.variable("")
            if self.now.kind == "name" and self.now.text.lower() == "free":
                last = self.take().line
                self.set_bound(i, "low", -math.inf, line)
                self.set_bound(i, "high", math.inf, line)
            else:
                sense, last = self.sense(), self.now.line
                self.limit(i, sense, self.signed(infinite=True), line)
        else:
            value = self.signed(infinite=True)
            sense, last = self.sense(), self.now.line
            i = self.variable("a bound must have a variable here")
            self.limit(i, -sense, value, line)
            if self.now.kind == "compare":
                sense, last = self.sense(), self.now.line
                self.limit(i, sense, self.signed(infinite=True), line)
        self.line_ends(last)

    def limit(self, i: int, sense: int, value: float, line: int) -> None:
        if sense <= 0:
            self.set_bound(i, "high", value, line)
        if sense >= 0:
            self.set_bound(i, "low", value, line)

    def set_bound(self, i: int, side: str, value: float, line: int) -> None:
        if (i, side) in self.bounded:
            self.fail(f"a bound of {self.model.columns[i].name!r} is given twice", line)
        self.bounded.add((i, side))
        setattr(self.model.columns[i], side, value)

    def integrality(self, section: str) -> None:
        if section == "semi-continuous":
            self.fail("semi-continuous variables cannot be read")
        if self.now.kind != "name":
            self.fail(f"a list of variables holds {self.show()}")
        column = self.model.columns[self.variable("")]
        column.integer = True
        column.binary = column.binary or section == "binary"


def _limit(row: Row, sense: int, value: float) -> None:
    if sense <= 0:
        row.high = value
    if sense >= 0:
        row.low = value
