"""The report for a ticket, a pull request or a terminal: headings, sentences and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from optiprune.report.document import Document, Section, Table

__all__ = ["markdown_text"]

# what Markdown or the HTML inside it would take as a sign of its own
_SIGNS = re.compile(r"([\\`*_\[\]<>|#~&$!])")


def markdown_text(document: Document) -> str:
    """GitHub's Markdown. Charts and pictures are left out: what they show stands in the tables."""
    return "\n".join(_lines(document)).rstrip() + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield from (f"# {_plain(document.title)}", "", f"Made by optiprune {document.version}.", "")
    for part in document.parts:
        if len(document.parts) > 1:
            yield from (f"## {_plain(part.title)}", "")
        for warning in part.warnings:
            yield from (f"> **Note:** {_plain(warning)}", "")
        for section in part.sections:
            yield from _section(section, "##" + "#" * (len(document.parts) > 1))


def _section(section: Section, level: str) -> Iterator[str]:
    yield from (f"{level} {_plain(section.title)}", "")
    for paragraph in section.paragraphs:
        yield from (_plain(paragraph), "")
    for table in section.tables:
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield from (f"{_plain(table.caption)}:", "")
    yield _row(table.columns)
    yield "|" + "|".join("---:" if n else "---" for n in table.numeric) + "|"
    for row in table.rows:
        yield _row(cell.text for cell in row)
    yield ""


def _row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(t) for t in texts) + " |"


def _plain(text: str) -> str:
    """Text that stays on its line and means nothing but itself."""
    return _SIGNS.sub(r"\\\1", " ".join(text.split()))
