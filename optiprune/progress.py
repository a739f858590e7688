"""A line of progress on a terminal; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from optiprune.engine.records import StepRecord

__all__ = ["Line", "StepProgress"]

_L = TypeVar("_L", bound="Line")


class Line:
    """Context manager that shows some columns on standard error.

    ``show``: True, False, or None for "if standard error is a terminal".
    """

    def __init__(self, show: bool | None, *columns: ProgressColumn) -> None:
        self._progress: Progress | None = None
        if sys.stderr.isatty() if show is None else show:
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self: _L) -> _L:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


class StepProgress(Line):
    """The last step of a run."""

    def __init__(self, show: bool | None = None) -> None:
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        super().__init__(show, *columns)
        if self._progress is not None:
            self._task = self._progress.add_task("preparing", total=None)

    def both(
        self, callback: Callable[[StepRecord], None] | None
    ) -> Callable[[StepRecord], None] | None:
        """A callback that shows the step and then calls ``callback``."""
        if self._progress is None:
            return callback

        def on_step(record: StepRecord) -> None:
            assert self._progress is not None
            where = record.layers[0] if len(record.layers) == 1 else f"{len(record.layers)} layers"
            self._progress.update(
                self._task,
                advance=1,
                description=f"step {record.step + 1}, {where}: {_value(record)}"
                f"{record.changed} changed{'' if record.accepted else ', rolled back'}",
            )
            if callback is not None:
                callback(record)

        return on_step


def _value(record: StepRecord) -> str:
    if record.objective is not None:
        return f"loss {record.objective:.5g}, "
    return "" if record.actual is None else f"error {record.actual:+.3g}, "
