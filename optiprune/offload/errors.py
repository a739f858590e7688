"""What a model directory can be refused for."""

from __future__ import annotations

__all__ = ["ModelDirectoryError"]


class ModelDirectoryError(ValueError):
    """A directory holds no model that can be pruned block by block; the message says why."""
