"""What the report cannot be made of."""

from __future__ import annotations

__all__ = ["ReportError"]


class ReportError(ValueError):
    """A folder without a run, or a file of a run that cannot be read; the message names it."""
