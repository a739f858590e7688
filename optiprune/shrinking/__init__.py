"""Which units leave a model within a budget, and how wide its layers stay."""

from .api import (
    StructureResult,
    StructureSweep,
    Tried,
    optimize_structure,
    refit_and_shrink,
    sweep_structure,
)
from .block_choice import BlockResult, BlockSearch, BlockSelection, optimize_blocks
from .errors import OutOfReachError, ShrinkingError
from .pareto import plot_sweep
from .search import SearchOptions
from .widths import Widths

__all__ = [
    "BlockResult",
    "BlockSearch",
    "BlockSelection",
    "OutOfReachError",
    "SearchOptions",
    "ShrinkingError",
    "StructureResult",
    "StructureSweep",
    "Tried",
    "Widths",
    "optimize_blocks",
    "optimize_structure",
    "plot_sweep",
    "refit_and_shrink",
    "sweep_structure",
]
