"""TensorBoard: event files in the folder of the run, by the writer that torch ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optiprune.engine.records import StepRecord

from .errors import TrackingError
from .scalars import Outcome, end_scalars, layer_scalars, step_scalars

__all__ = ["TensorBoardTracker"]


class TensorBoardTracker:
    """Scalars by step under ``step/``, by layer under ``layer/``, of the end under ``end/``.

    A run that goes on tells of its steps from the first one again; TensorBoard forgets what earlier
    files of the folder say of them (``purge_step``).

    Parameters
    ----------
    folder : of the event files, made with the first step
    config : the run file's text, which is shown

    Raises
    ------
    TrackingError
        TensorBoard is not installed.
    """

    def __init__(self, folder: Path, config: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise TrackingError(
                "output.log names 'tensorboard', which is not installed: "
                "pip install 'optiprune[tensorboard]'"
            ) from e
        self._make = SummaryWriter
        self._folder = folder
        self._text = config
        self._writer: Any = None

    def step(self, record: StepRecord) -> None:
        writer = self._opened()
        for name, value in step_scalars(record).items():
            writer.add_scalar(name, value, record.step)

    def end(self, outcome: Outcome) -> None:
        writer = self._opened()
        last = outcome.report.steps
        for name, value in end_scalars(outcome).items():
            writer.add_scalar(name, value, last)
        for number, scalars in enumerate(layer_scalars(outcome), 1):
            for name, value in scalars.items():
                writer.add_scalar(name, value, number)
        notes = [*outcome.report.notes, *([outcome.failed] if outcome.failed else [])]
        if notes:
            writer.add_text("notes", "\n".join(f"- {note}" for note in notes), last)

    def close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Any:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=0)
            self._writer.add_text("config", "```toml\n" + self._text + "\n```", 0)
        return self._writer
