"""Errors of a pruning run."""

from __future__ import annotations

from typing import Any

__all__ = ["BudgetError", "RunInterruptedError", "StepFailedError"]


class BudgetError(ValueError):
    """The sparsity asked for cannot be met layer by layer; the message names the layer."""


class StepFailedError(RuntimeError):
    """A step failed in the middle of a run. The model is untouched.

    ``partial`` holds the result up to the step before: for `optimize_masks`, a `MaskResult` whose
    masks can be applied or saved.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class RunInterruptedError(KeyboardInterrupt):
    """Ctrl-C in the middle of a run. The model is untouched.

    A KeyboardInterrupt, so that a loop around many runs that catches Exception ends as well.
    ``partial`` holds the result so far as that of `StepFailedError` does; None before the first
    step.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial
