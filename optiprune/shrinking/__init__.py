"""Which units leave a model within a budget, and how wide its layers stay."""

from .api import optimize_structure, refit_and_shrink
from .block_choice import BlockResult, BlockSearch, BlockSelection, optimize_blocks
from .errors import OutOfReachError, ShrinkingError
from .pareto import plot_sweep
from .result import StructureResult, Tried
from .search import SearchOptions
from .sweep import StructureSweep, sweep_structure
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
