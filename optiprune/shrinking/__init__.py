"""Which units leave a model within a budget, and how wide its layers stay."""

from .api import StructureResult, Tried, optimize_structure, refit_and_shrink
from .errors import ShrinkingError
from .widths import Widths

__all__ = [
    "ShrinkingError",
    "StructureResult",
    "Tried",
    "Widths",
    "optimize_structure",
    "refit_and_shrink",
]
