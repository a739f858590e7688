"""Worker processes of this machine, each with a task at a time.

Every worker is a loky executor of its own: loky pickles what a user's script defines and needs no
``if __name__ == "__main__"``, and the loss of one process breaks one executor and costs one task.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from loky import ProcessPoolExecutor

from optiprune.config import ExecutorOptions

from .base import Shared, Task
from .ordered import LostError, in_order
from .shared_file import read_shared, write_shared
from .worker import packed, perform

__all__ = ["ProcessExecutor"]

# layers differ in size: a worker that grows with a large one leaks nothing, and is not to be ended
_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}


@dataclass(slots=True, eq=False)
class _Handle:
    """A task that waits, or runs on a worker."""

    task: Task
    payload: bytes
    worker: int | None = None
    future: Future[Any] | None = None


class ProcessExecutor:
    """``workers`` processes; see `Executor`."""

    def __init__(self, workers: int, options: ExecutorOptions) -> None:
        self.repeated: list[str] = []
        self._options = options
        self._pools = [_worker() for _ in range(workers)]
        self._idle = list(range(workers))
        self._waiting: deque[_Handle] = deque()
        self._folder = tempfile.TemporaryDirectory(prefix="optiprune-")
        self._number = count()
        self._files: weakref.WeakKeyDictionary[Shared, Path] = weakref.WeakKeyDictionary()

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        most = len(self._pools) + self._options.ahead
        return in_order(self, tasks, most, self._options.retries, self.repeated)

    def everywhere(self, task: Task) -> None:
        payload = packed(task)
        for future in [pool.submit(perform, sys.path, payload) for pool in self._pools]:
            future.result()

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=True, kill_workers=True)
        self._folder.cleanup()

    def submit(self, task: Task) -> _Handle:
        handle = _Handle(task, packed(task))
        self._waiting.append(handle)
        self._hand_out()
        return handle

    def wait(self, handles: Sequence[_Handle]) -> _Handle:
        futures = {h.future: h for h in handles if h.future is not None}
        ended, _ = wait(futures, return_when=FIRST_COMPLETED)
        return next(h for f, h in futures.items() if f in ended)

    def result(self, handle: _Handle) -> Any:
        assert handle.future is not None
        assert handle.worker is not None
        worker, handle.worker = handle.worker, None
        try:
            return handle.future.result()
        except BrokenExecutor as e:
            self._pools[worker].shutdown(wait=False, kill_workers=True)
            self._pools[worker] = _worker()
            raise LostError(
                "the process ended; out of memory, or killed" if not str(e) else _short(e)
            ) from e
        finally:
            self._idle.append(worker)
            self._hand_out()

    def cancel(self, handles: Sequence[_Handle]) -> None:
        self._waiting.clear()
        for handle in handles:
            if handle.worker is not None:
                # what runs cannot be called back: its process goes
                self._pools[handle.worker].shutdown(wait=False, kill_workers=True)
                self._pools[handle.worker] = _worker()
                self._idle.append(handle.worker)
                handle.worker = None

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            handle = self._waiting.popleft()
            handle.worker = self._idle.pop(0)
            files = [self._file(shared) for shared in handle.task.shared]
            handle.future = self._pools[handle.worker].submit(
                _perform, sys.path, handle.payload, files
            )

    def _file(self, shared: Shared) -> Path:
        """Of the value; it goes when no task needs it any more."""
        path = self._files.get(shared)
        if path is None:
            path = Path(self._folder.name) / f"{next(self._number)}.bin"
            write_shared(path, shared.take())
            self._files[shared] = path
            weakref.finalize(shared, partial(path.unlink, missing_ok=True)).atexit = False
        return path


def _worker() -> ProcessPoolExecutor:
    """One process; it starts with its first task."""
    return ProcessPoolExecutor(max_workers=1, initializer=_ignore_interrupts, env=_ENVIRONMENT)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the one that hands out the tasks decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _perform(path: Sequence[str], payload: bytes, files: Sequence[Path]) -> Any:
    return perform(path, payload, *(read_shared(file) for file in files))


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
