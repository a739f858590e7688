"""Why a model could not be made smaller."""

__all__ = ["OutOfReachError", "ShrinkingError"]


class ShrinkingError(ValueError):
    """No choice of units fits; the message says which demand cannot be met."""


class OutOfReachError(ShrinkingError):
    """No widths that are allowed meet the budgets."""
