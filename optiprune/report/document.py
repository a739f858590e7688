"""What a report says, apart from the form it is written in: parts, sections, tables, charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .charts.plot import Plot

__all__ = ["Cell", "Document", "Part", "Picture", "Section", "Table", "cells", "table"]

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table.

    Attributes
    ----------
    value : what is sorted by, and what JSON gets
    text : what is shown
    """

    value: Value
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns.

    Attributes
    ----------
    caption : what the table is, in a sentence
    columns : their names
    numeric : for every column, whether it holds numbers
    rows : a `Cell` for every column; the first one names the row
    long : whether it is folded until somebody asks for it
    sorts : whether another order of its rows makes sense
    """

    caption: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    long: bool = False
    sorts: bool = True


@dataclass(frozen=True, slots=True)
class Picture:
    """A small PNG image.

    Attributes
    ----------
    name : what it shows
    png : the file's bytes
    width, height : pixels
    text : what can be seen, for those who do not see it
    """

    name: str
    png: bytes
    width: int
    height: int
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """One topic. What a chart shows stands in a table of the same section, too."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """All about one run, or the comparison of several.

    Attributes
    ----------
    state : "finished", "stopped", "unfinished"; "" for a comparison
    warnings : what a reader must know before the rest
    """

    key: str
    title: str
    state: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A report: the comparison first where there are several runs."""

    title: str
    version: str
    parts: tuple[Part, ...]


def cells(*values: Cell | Value) -> tuple[Cell, ...]:
    """A row: what is no `Cell` yet is shown as it is, None as a dash."""
    return tuple(
        v if isinstance(v, Cell) else Cell(v, "–" if v is None else str(v)) for v in values
    )


def _kinds(rows: Sequence[Sequence[Cell]], columns: int) -> tuple[bool, ...]:
    """For every column, whether there is nothing but numbers in it, or nothing at all."""
    return tuple(
        all(row[i].value is None or isinstance(row[i].value, int | float) for row in rows)
        for i in range(columns)
    )


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    long: bool = False,
    sorts: bool = True,
) -> Table:
    """A `Table` whose columns without words are numeric."""
    kinds = _kinds(rows, len(columns))
    return Table(caption, tuple(columns), kinds, tuple(tuple(r) for r in rows), long, sorts)
