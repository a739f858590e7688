"""The report for programs: the values of all tables, unrounded."""

from __future__ import annotations

import json
import math
from typing import Any

from optiprune.report.document import Cell, Document, Section

__all__ = ["FORMAT_VERSION", "json_text"]

FORMAT_VERSION = 1


def json_text(document: Document) -> str:
    """JSON: parts, their sections, and tables as lists of rows by column name.

    Charts and pictures are left out: what they show stands in the tables.
    """
    content = {
        "format": "optiprune-report",
        "format_version": FORMAT_VERSION,
        "optiprune": document.version,
        "title": document.title,
        "parts": [
            {
                "key": part.key,
                "title": part.title,
                "state": part.state or None,
                "warnings": list(part.warnings),
                "sections": [_section(s) for s in part.sections],
            }
            for part in document.parts
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "text": list(section.paragraphs),
        "tables": [
            {
                "caption": table.caption,
                "rows": [
                    {c: _value(cell) for c, cell in zip(table.columns, row, strict=True)}
                    for row in table.rows
                ],
            }
            for table in section.tables
        ],
    }


def _value(cell: Cell) -> Any:
    """JSON has no word for infinity; the text says which."""
    if isinstance(cell.value, float) and not math.isfinite(cell.value):
        return cell.text
    return cell.value
