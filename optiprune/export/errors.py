"""Errors of exports."""

from __future__ import annotations

__all__ = ["ExportError", "PackedFileError"]


class ExportError(ValueError):
    """A model that cannot be exported as asked; the message says why. Nothing was written."""


class PackedFileError(ValueError):
    """A packed file that is damaged, of another format, or for another model."""
