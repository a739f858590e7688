"""Errors of masks and mask files."""

from __future__ import annotations

__all__ = ["MaskError", "MaskFileError"]


class MaskError(ValueError):
    """A mask, its values, or a model that it does not fit; the message names the parameter."""


class MaskFileError(MaskError):
    """A mask file that is damaged, of another format, or made for another model."""
