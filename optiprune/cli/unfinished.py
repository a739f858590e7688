"""The part of a run's folder that is there until the run has ended: config and steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optiprune.config.run_files import CONFIG, SUMMARY, UNFINISHED
from optiprune.durable import Journal, locked, replacing

from .errors import InputError
from .pretrained_config import PretrainedRunConfig, load_prune_config
from .run_config import RunConfig
from .toml_text import toml_text

__all__ = ["Unfinished"]

_ORIGIN = "folder.txt"


class Unfinished:
    """``<folder>/unfinished``: what `optiprune resume` goes on with.

    Parameters
    ----------
    folder : of the results
    """

    def __init__(self, folder: Path) -> None:
        self._results = folder
        self._folder = folder / UNFINISHED
        self._journal: Journal | None = None
        self._ended = False

    @property
    def steps(self) -> int:
        """That are on disk; what the run follows from is none."""
        return 0 if self._journal is None else max(0, len(self._journal.entries) - 1)

    @property
    def hint(self) -> str:
        """How to go on; empty where there is nothing to go on with."""
        if not self.steps:
            return ""
        return f"{self.steps} steps are on disk; go on with: optiprune resume {self._results}"

    def check_none(self) -> None:
        """Raise `InputError` for a run that has not ended."""
        if (self._folder / CONFIG).exists():
            raise InputError(
                f"{self._results} holds a run that has not ended; `optiprune resume "
                f"{self._results}` goes on with it, --force starts anew"
            )

    @contextmanager
    def begin(self, run: RunConfig | PretrainedRunConfig, here: Path) -> Iterator[Journal]:
        """The journal of a new run, in the place of one that is there; left if it has steps.

        Parameters
        ----------
        here : folder that the run's modules are found in

        Raises
        ------
        LockedError
            Another process writes there.
        """
        new = not self._results.exists()
        try:
            with self._locked():
                try:
                    self._clear()
                    self._write(_ORIGIN, str(here))
                    self._write(CONFIG, toml_text(run.model_dump(mode="json")))
                    self._journal = Journal(self._folder)
                    yield self._journal
                finally:
                    if not self._ended and not self.steps:
                        self.discard()
        finally:
            if new:  # a run that did nothing leaves nothing
                with suppress(OSError):
                    self._results.rmdir()

    @contextmanager
    def go_on(
        self, *, repair: bool
    ) -> Iterator[tuple[RunConfig | PretrainedRunConfig, Path, Journal]]:
        """Config with absolute paths, folder of its modules, and journal of the run there.

        Raises
        ------
        InputError
            There is none.
        JournalError
            It is damaged and not to be repaired.
        LockedError
            Another process writes there.
        """
        path = self._folder / CONFIG
        if not path.is_file():
            done = (self._results / SUMMARY).exists()
            why = "the run there has ended" if done else "there is no run that was begun"
            raise InputError(f"{self._results}: nothing to go on with, {why}")
        with self._locked():
            self._journal = Journal(self._folder, repair=repair)
            origin = Path((self._folder / _ORIGIN).read_text(encoding="utf-8"))
            yield load_prune_config(path, {}), origin, self._journal

    def discard(self) -> None:
        """The run has ended, and its results are on disk."""
        self._ended = True
        self._clear()

    def _clear(self) -> None:
        """Without its config nothing is gone on with: it goes first."""
        for name in (CONFIG, _ORIGIN):
            (self._folder / name).unlink(missing_ok=True)
        Journal.remove(self._folder)

    def _write(self, name: str, text: str) -> None:
        with replacing(self._folder / name) as part:
            part.write_text(text, encoding="utf-8")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._folder.is_symlink():
            raise InputError(
                f"{self._folder} is a link: what a run writes and removes stays in its own folder"
            )
        try:
            with locked(self._folder):
                yield
        finally:
            if self._ended:
                with suppress(OSError):
                    (self._folder / ".lock").unlink()
                    self._folder.rmdir()
