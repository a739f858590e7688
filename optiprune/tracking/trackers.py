"""The trackers of a run: chosen by name; once the run is at work they cannot make it fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from optiprune.engine.records import StepRecord

from .errors import TrackingError
from .scalars import Outcome

__all__ = ["TRACKERS", "Tracker", "Tracking", "require_installed"]

TRACKERS = ("tensorboard", "mlflow")


class Tracker(Protocol):
    """Something that follows a run."""

    def step(self, record: StepRecord) -> None:
        """A step was done; those of a run that goes on come again, from the first."""

    def end(self, outcome: Outcome) -> None:
        """The run has ended, or was stopped with a result."""

    def close(self, *, failed: bool) -> None:
        """Nothing follows."""


def require_installed(names: Sequence[str]) -> None:
    """Raise `TrackingError` for a tracker that is unknown or not installed; nothing is loaded."""
    for name in names:
        if name not in TRACKERS:
            raise TrackingError(f"no tracker {name!r}; there are {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise TrackingError(
                f"output.log names {name!r}, which is not installed: pip install "
                f"'optiprune[{name}]'"
            )


class Tracking:
    """Several trackers as one; to be used in a ``with``.

    A tracker that raises is left out from then on, and ``note`` is told once: a server that is gone
    costs its lines, not the run.

    Parameters
    ----------
    note : takes a line for the user
    """

    def __init__(self, trackers: Mapping[str, Tracker], note: Callable[[str], None]) -> None:
        self._trackers = dict(trackers)
        self._note = note
        self._failed = False

    @classmethod
    def start(
        cls,
        names: Sequence[str],
        folder: Path,
        config: Mapping[str, Any],
        text: str,
        note: Callable[[str], None],
        *,
        resumed: bool,
    ) -> Tracking:
        """The trackers of a run that begins or goes on.

        Parameters
        ----------
        folder : of the run's results
        config, text : its options, nested and as TOML

        Raises
        ------
        TrackingError
            One of them cannot be used; to be raised before the run begins.
        """
        require_installed(names)
        trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            if name == "tensorboard":
                from .tensorboard import TensorBoardTracker

                trackers[name] = TensorBoardTracker(folder / name, text)
            else:
                from .mlflow import MlflowTracker

                trackers[name] = MlflowTracker(folder, config, resumed=resumed)
        return cls(trackers, note)

    @property
    def callback(self) -> Callable[[StepRecord], None] | None:
        """For `optimize_masks`; None without trackers."""
        return self.step if self._trackers else None

    def step(self, record: StepRecord) -> None:
        self._each(lambda tracker: tracker.step(record))

    def end(self, outcome: Outcome) -> None:
        self._failed = bool(outcome.failed)
        self._each(lambda tracker: tracker.end(outcome))

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = self._failed or kind is not None
        self._each(lambda tracker: tracker.close(failed=failed))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as e:  # whatever a server, a disk or a library raises
                del self._trackers[name]
                self._note(f"{name} is not logged to any more: {type(e).__name__}: {e}")
