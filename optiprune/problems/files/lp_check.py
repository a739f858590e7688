"""A strict look at LP and MPS text before HiGHS parses it.

HiGHS's readers are forgiving: they take a file of garbage for an empty model and ``abc`` for a
number, and name no line. These checks refuse what is not plainly well-formed, with the line.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from .limits import located

__all__ = ["check_lp", "check_mps"]

_MAX_LINE = 1 << 20  # HiGHS writes an objective in one line

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_!\"#$%&(),;?@'`{}~][A-Za-z0-9_!\"#$%&(),;?@'`{}~.]*)"
    r"|(?P<compare><=|>=|=<|=>|<|>|=)"
    r"|(?P<mark>[-+*^/:\[\]])"
)
_SECTIONS = {
    "minimize": "objective",
    "minimum": "objective",
    "min": "objective",
    "maximize": "objective",
    "maximum": "objective",
    "max": "objective",
    "subject to": "rows",
    "such that": "rows",
    "st": "rows",
    "s.t.": "rows",
    "bounds": "bounds",
    "bound": "bounds",
    "binary": "names",
    "binaries": "names",
    "bin": "names",
    "general": "names",
    "generals": "names",
    "gen": "names",
    "integers": "names",
    "integer": "names",
    "semi-continuous": "names",
    "semi": "names",
    "end": "end",
}


def check_lp(path: Path, text: str) -> None:
    """Refuse LP text with foreign characters, numbers that are not finite, dangling operators,
    unbalanced brackets, no objective, or no ``end`` as its last word."""
    section = ""
    last = ("start", "")  # kind and text of the token before, within the section
    bracket = 0
    seen: set[str] = set()
    number = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.split("\\", 1)[0].strip()
        if not line:
            continue
        if len(line) > _MAX_LINE:
            raise located(path, number, f"the line is longer than {_MAX_LINE} characters")
        if section == "end":
            raise located(path, number, "content after 'end'")
        heading = _SECTIONS.get(line.lower())
        if heading:
            if bracket:
                raise located(path, number, f"'[' is not closed before {line!r}")
            _finish(path, number, section, last)
            if section == "" and heading != "objective":
                raise located(path, number, "the file must start with 'minimize' or 'maximize'")
            if heading == "objective" and section:
                raise located(path, number, "a second objective")
            section, last = heading, ("start", "")
            seen.add(heading)
            continue
        if not section:
            raise located(path, number, "the file must start with 'minimize' or 'maximize'")
        at = 0
        while at < len(line):
            if line[at].isspace():
                at += 1
                continue
            match = _TOKEN.match(line, at)
            if match is None:
                raise located(path, number, f"unexpected character {line[at]!r}")
            kind, token = str(match.lastgroup), match.group()
            word = token.lower()
            if kind == "name" and word in ("inf", "infinity"):
                if section != "bounds":
                    raise located(path, number, "infinity is allowed in bounds only")
                kind = "number"
            elif kind == "name" and word == "nan":
                raise located(path, number, "nan is no number")
            elif kind == "number" and not math.isfinite(float(token)):
                raise located(path, number, f"{token} is too large for a number")
            bracket += {"[": 1, "]": -1}.get(token, 0)
            if bracket not in (0, 1):
                raise located(path, number, "brackets do not match")
            if section == "names" and kind != "name":
                raise located(path, number, f"a list of variables holds {token!r}")
            _follow(path, number, last, (kind, token))
            last = (kind, token)
            at = match.end()
    if section != "end":
        raise located(path, number, "the file does not end with 'end' (truncated?)")


def _follow(path: Path, number: int, last: tuple[str, str], now: tuple[str, str]) -> None:
    """Refuse an operator where an operand must stand, and the other way round."""
    before, token = last[1], now[1]
    dangling = before in ("+", "-", "*", "^", "/", "[") or last[0] == "compare"
    operator = now[0] == "compare" or token in ("*", "^", "/", "]", ":")
    if (dangling and operator) or (last[0] == "compare" and now[0] == "compare"):
        raise located(path, number, f"{token!r} cannot follow {before!r}")
    if last[0] == "number" and now[0] == "number":
        raise located(path, number, f"two numbers in a row: {before} {token}")
    if last[0] == "start" and operator and token != ":":
        raise located(path, number, f"a section cannot start with {token!r}")


def _finish(path: Path, number: int, section: str, last: tuple[str, str]) -> None:
    if section in ("objective", "rows", "bounds") and (
        last[0] == "compare" or last[1] in ("+", "-", "*", "^", "[")
    ):
        raise located(path, number, f"the section before this line ends in {last[1]!r}")


_MPS_ORDER = ("ROWS", "COLUMNS", "RHS", "RANGES", "BOUNDS", "QUADOBJ", "QMATRIX", "ENDATA")
_BOUNDS_WITH_VALUE = frozenset({"LO", "UP", "FX", "LI", "UI", "SC"})
_BOUNDS_WITHOUT = frozenset({"FR", "MI", "PL", "BV"})


def check_mps(path: Path, text: str) -> None:
    """Refuse MPS text with unknown sections, rows or columns, bad numbers, repeated entries, or
    without ENDATA. Names may not hold spaces."""
    section = ""
    done = -1  # index of the last section in the order above
    rows: set[str] = set()
    columns: set[str] = set()
    entries: set[tuple[str, str, str]] = set()
    number = 0
    for number, raw in enumerate(text.split("\n"), 1):
        if len(raw) > _MAX_LINE:
            raise located(path, number, f"the line is longer than {_MAX_LINE} characters")
        if raw.startswith("*") or not raw.strip():
            continue
        if section == "ENDATA":
            raise located(path, number, "content after ENDATA")
        tokens = raw.split()
        if not raw[0].isspace():
            head = tokens[0].upper()
            if head in ("NAME", "OBJSENSE") and done < 0:
                section = head
                continue
            if head not in _MPS_ORDER or len(tokens) > 1:
                raise located(path, number, f"unknown section {raw.strip()[:40]!r}")
            if _MPS_ORDER.index(head) <= done:
                raise located(path, number, f"the section {head} is out of order")
            if head != "ROWS" and done < 0:
                raise located(path, number, f"{head} before ROWS")
            done, section = _MPS_ORDER.index(head), head
            continue
        if section == "ROWS":
            if len(tokens) != 2 or tokens[0].upper() not in ("N", "L", "G", "E"):
                raise located(path, number, "expected a row as 'N|L|G|E name'")
            if tokens[1] in rows:
                raise located(path, number, f"the row {tokens[1]!r} is given twice")
            rows.add(tokens[1])
        elif section == "COLUMNS":
            if len(tokens) == 3 and tokens[1].strip("'\"") == "MARKER":
                if tokens[2].strip("'\"") not in ("INTORG", "INTEND"):
                    raise located(path, number, f"unknown marker {tokens[2]!r}")
                continue
            columns.add(tokens[0])
            _mps_values(path, number, section, tokens, rows, entries)
        elif section in ("RHS", "RANGES"):
            if len(tokens) % 2 == 0:  # the name of the set may be left out
                tokens = ["", *tokens]
            _mps_values(path, number, section, tokens, rows, entries)
        elif section == "BOUNDS":
            kind = tokens[0].upper()
            want = 4 if kind in _BOUNDS_WITH_VALUE else 3
            if kind not in _BOUNDS_WITH_VALUE | _BOUNDS_WITHOUT or len(tokens) != want:
                raise located(path, number, f"not a bound: {raw.strip()[:40]!r}")
            if tokens[2] not in columns:
                raise located(path, number, f"unknown column {tokens[2]!r}")
            if want == 4:
                _finite(path, number, tokens[3], infinite=True)
        elif section in ("QUADOBJ", "QMATRIX"):
            if len(tokens) != 3:
                raise located(path, number, "expected 'column column value'")
            for name in tokens[:2]:
                if name not in columns:
                    raise located(path, number, f"unknown column {name!r}")
            first, second = tokens[:2] if section == "QMATRIX" else sorted(tokens[:2])
            _once(path, number, entries, (section, first, second))
            _finite(path, number, tokens[2])
        elif section != "OBJSENSE" or tokens[0].upper() not in ("MIN", "MAX"):
            raise located(path, number, f"unexpected line {raw.strip()[:40]!r}")
    if section != "ENDATA":
        raise located(path, number, "the file does not end with ENDATA (truncated?)")


def _mps_values(
    path: Path,
    number: int,
    section: str,
    tokens: list[str],
    rows: set[str],
    entries: set[tuple[str, str, str]],
) -> None:
    """``set row value [row value]``."""
    if len(tokens) not in (3, 5):
        raise located(path, number, f"expected 'name row value' in {section}")
    for row, value in zip(tokens[1::2], tokens[2::2], strict=True):
        if row not in rows:
            raise located(path, number, f"unknown row {row!r}")
        _once(path, number, entries, (section, tokens[0], row))
        _finite(path, number, value)


def _once(
    path: Path, number: int, entries: set[tuple[str, str, str]], key: tuple[str, str, str]
) -> None:
    if key in entries:
        raise located(path, number, f"{key[1]} {key[2]} is given twice in {key[0]}")
    entries.add(key)


def _finite(path: Path, number: int, token: str, *, infinite: bool = False) -> None:
    try:
        value = float(token) if "_" not in token else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise located(path, number, f"{token[:40]!r} is not a finite number")
