"""Processes that hold CP-SAT: ortools and highspy cannot be imported into the same one.

One is started for each solve under way and kept for the next: importing ortools takes a second.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from optiprune.solvers.errors import BackendMissingError, SolverError

__all__ = ["CpSatProcess", "TookTooLongError", "borrowed"]

_CHILD = Path(__file__).with_name("cp_sat_child.py")
# run_path leaves the path of imports alone, which running the file would not: this folder's
# modules are no top-level ones
_RUN = "import runpy, sys; sys.path[:] = {path!r}; runpy.run_path({child!r}, run_name='__main__')"
_START_S = 60.0
# processes that wait for a next solve at most: each holds some 100 MB
_IDLE = 2

_idle: list[CpSatProcess] = []
_lock = threading.Lock()


class TookTooLongError(SolverError):
    """The process was killed for its silence."""


class CpSatProcess:
    """One process, which solves one task at a time."""

    def __init__(self) -> None:
        # a file, since nobody reads it unless the process dies: a pipe would fill up
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
        code = _RUN.format(path=sys.path, child=str(_CHILD))
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._numbers = count()
        self._number = -1
        self._writing = threading.Lock()
        self._late = False
        try:
            with self._killed_after(_START_S):
                kind, *words = self._receive()
            if kind != "ready":
                raise BackendMissingError(
                    f"solver 'cp-sat' needs ortools, which cannot be imported ({words[0]}); "
                    "install it with: pip install ortools"
                )
        except BaseException:  # Ctrl-C too
            self.end()
            raise

    def solve(
        self, task: dict[str, Any], found: Callable[[Any], None], patience: float | None
    ) -> dict[str, Any] | str:
        """The answer to a task; ``found`` is told each incumbent.

        A string holds why CP-SAT refused it. After ``patience`` seconds (None: never) the process
        is ended: `TookTooLongError`. Raises `SolverError` if it ends before it has answered.
        """
        number = self._number = next(self._numbers)
        with self._killed_after(patience):
            self._send(("solve", number, task))
            while True:
                kind, of, what = self._receive()
                if of != number:
                    continue
                if kind == "found":
                    found(what)
                else:
                    assert isinstance(what, dict | str)
                    return what

    def stop(self) -> None:
        """Ask for the end of the solve under way, from any thread."""
        with contextlib.suppress(SolverError):
            self._send(("stop", self._number))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _send(self, message: tuple[Any, ...]) -> None:
        assert self._process.stdin is not None
        try:
            with self._writing:
                self._process.stdin.write(pickle.dumps(message))
                self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._death() from None

    def _receive(self) -> tuple[Any, ...]:
        assert self._process.stdout is not None
        try:
            message = pickle.load(self._process.stdout)
        except (OSError, ValueError, EOFError, pickle.UnpicklingError):
            raise self._death() from None
        assert isinstance(message, tuple)
        return message

    def _death(self) -> SolverError:
        self._process.kill()
        code = self._process.wait()
        if self._late:
            return TookTooLongError("the process of CP-SAT was ended: it did not keep its limit")
        words = ""
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0)
            words = self._errors.read()[-400:].decode(errors="replace").strip()
        return SolverError(
            f"the process of CP-SAT ended with exit code {code} before it had answered"
            f"{f' ({words})' if words else ''}; exit code -9 often means that memory ran out: "
            "try a smaller problem"
        )

    @contextlib.contextmanager
    def _killed_after(self, seconds: float | None) -> Iterator[None]:
        timer = None

        def kill() -> None:
            self._late = True
            self._process.kill()

        if seconds is not None:
            timer = threading.Timer(seconds, kill)
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


@contextlib.contextmanager
def borrowed() -> Iterator[CpSatProcess]:
    """A process for one solve; it is kept for the next one unless an error passes."""
    process = None
    with _lock:
        while _idle and process is None:
            process = _idle.pop()
            if not process.alive:
                process.end()
                process = None
    if process is None:
        process = CpSatProcess()
    try:
        yield process
    except BaseException:
        process.end()
        raise
    with _lock:
        keep = len(_idle) < _IDLE
        if keep:
            _idle.append(process)
    if not keep:
        process.end()


def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    # a forked process must not talk to its parent's
    os.register_at_fork(after_in_child=_idle.clear)
