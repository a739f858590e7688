"""The part of a run's folder that is there until the run has ended: config and steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optiprune.durable import Journal, locked, replacing

from .errors import InputError
from .run_config import RunConfig, load_run_config
from .toml_text import toml_text

__all__ = ["Unfinished"]

_CONFIG = "config.toml"
# who the run is stands before the first step
_BEFORE_STEPS = 1


class Unfinished:
    """``<folder>/unfinished``: what `optiprune resume` goes on with.

    Parameters
    ----------
    folder : of the results
    """

    def __init__(self, folder: Path) -> None:
        self._results = folder
        self._folder = folder / "unfinished"

    @contextmanager
    def begin(self, run: RunConfig, *, force: bool) -> Iterator[Journal]:
        """The journal of a new run.

        Raises
        ------
        InputError
            Steps of a run that has not ended lie there and ``force`` is false.
        LockedError
            Another process writes them.
        """
        if (self._folder / _CONFIG).exists() and not force:
            raise InputError(
                f"{self._results} holds a run that has not ended; `optiprune resume "
                f"{self._results}` goes on with it, --force starts anew"
            )
        with self._kept():
            journal = Journal(self._folder)
            journal.clear()
            with replacing(self._folder / _CONFIG) as part:
                part.write_text(toml_text(run.model_dump(mode="json")), encoding="utf-8")
            yield journal

    @contextmanager
    def go_on(self, *, repair: bool) -> Iterator[tuple[RunConfig, Journal]]:
        """Config, with absolute paths, and journal of the run that was begun.

        Raises
        ------
        InputError
            There is none.
        JournalError
            It is damaged and not to be repaired.
        LockedError
            Another process writes there.
        """
        path = self._folder / _CONFIG
        if not path.is_file():
            done = (self._results / "summary.json").exists()
            why = "the run there has ended" if done else "there is no run that was begun"
            raise InputError(f"{self._results}: nothing to go on with, {why}")
        with self._kept():
            yield load_run_config(path), Journal(self._folder, repair=repair)

    def discard(self) -> None:
        """The run has ended, and its results are on disk."""
        shutil.rmtree(self._folder)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Hold the lock; leave nothing behind of a run without a step."""
        new = not self._results.exists()
        held = False
        try:
            with locked(self._folder):
                held = True
                yield
        finally:
            if held and self._folder.exists() and self._is_empty():
                self.discard()
            if held and new and not any(self._results.iterdir()):
                self._results.rmdir()

    def _is_empty(self) -> bool:
        journal = self._folder / "journal.jsonl"
        return not journal.exists() or journal.read_bytes().count(b"\n") <= _BEFORE_STEPS
