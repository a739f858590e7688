"""What can be wrong with a training run."""

from __future__ import annotations

__all__ = ["TrainingError"]


class TrainingError(ValueError):
    """Options, data or a checkpoint that do not fit, or a loss that is not a number."""
