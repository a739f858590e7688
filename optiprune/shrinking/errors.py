"""Why a model could not be made smaller."""

__all__ = ["ShrinkingError"]


class ShrinkingError(ValueError):
    """No choice of units fits; the message says which demand cannot be met."""
