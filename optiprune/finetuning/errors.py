"""Errors of fine-tuning."""

from __future__ import annotations

__all__ = ["FineTuningError", "missing_extra"]


class FineTuningError(ValueError):
    """Adapters, or a training set-up, that do not go with a sparse model; the message says why."""


def missing_extra(what: str, extra: str, error: ImportError) -> ImportError:
    """The error for a library that ``what`` needs and that cannot be imported."""
    return ImportError(
        f"{what} needs a library that cannot be imported ({error}); "
        f"install it with: pip install 'optiprune[{extra}]'"
    )
