"""What can be wrong with a training run."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TrainingError", "check_ranges"]


class TrainingError(ValueError):
    """Options, data or a checkpoint that do not fit, or a loss that is not a number."""


def check_ranges(options: object, right: Mapping[str, bool]) -> None:
    """Raise `TrainingError` for the first attribute of the options that is not in its range.

    Parameters
    ----------
    right : attribute's name -> whether its value is
    """
    for name, fits in right.items():
        if not fits:
            raise TrainingError(f"{name} = {getattr(options, name)!r} is out of its range")
