"""The engine: first mask, density schedule, batches, steps, refit. It never writes to a model."""

from .errors import BudgetError, RunInterruptedError, StepFailedError
from .records import StepRecord
from .result import LayerReport, RunReport

__all__ = [
    "BudgetError",
    "LayerReport",
    "RunInterruptedError",
    "RunReport",
    "StepFailedError",
    "StepRecord",
]
