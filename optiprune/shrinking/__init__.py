"""Which units leave a model within a budget, and how wide its layers stay."""

from .api import StructureResult, Tried, optimize_structure, refit_and_shrink
from .block_choice import BlockResult, BlockSelection, optimize_blocks
from .errors import ShrinkingError
from .widths import Widths

__all__ = [
    "BlockResult",
    "BlockSelection",
    "ShrinkingError",
    "StructureResult",
    "Tried",
    "Widths",
    "optimize_blocks",
    "optimize_structure",
    "refit_and_shrink",
]
