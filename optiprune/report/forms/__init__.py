"""A report as text: HTML, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Callable

from optiprune.report.document import Document

from .html_page import html_page
from .json_text import json_text
from .markdown_text import markdown_text

__all__ = ["FORMS", "html_page", "json_text", "markdown_text"]

FORMS: dict[str, Callable[[Document], str]] = {
    "html": html_page,
    "markdown": markdown_text,
    "json": json_text,
}
