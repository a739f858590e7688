"""A bar of steps on a terminal; nothing anywhere else."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from optiprune.progress import Line

__all__ = ["TrainingProgress"]


class TrainingProgress(Line):
    """Steps of a training loop, with the epoch and the loss."""

    def __init__(self, show: bool | None, total: int) -> None:
        text = TextColumn("{task.description}")
        super().__init__(show, text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        if self._progress is not None:
            self._task = self._progress.add_task("training", total=total)

    def show(self, step: int, epoch: int, loss: float) -> None:
        if self._progress is not None:
            self._progress.update(
                self._task, completed=step, description=f"epoch {epoch + 1}, loss {loss:.4g}"
            )
