"""A bar of steps on a terminal; nothing anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """``show``: True, False, or None for "if standard error is a terminal"."""

    def __init__(self, show: bool | None, total: int) -> None:
        self._bar: Progress | None = None
        if sys.stderr.isatty() if show is None else show:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("training", total=total)

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: int, epoch: int, loss: float) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, description=f"epoch {epoch + 1}, loss {loss:.4g}"
            )
