"""Results in the order of the tasks, with so many tasks under way and no more.

A task whose worker is lost is handed out again. Whatever is handed out first, results come in the
order of the tasks, so that nothing that follows from them depends on the number of workers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .base import Task, WorkerLostError

__all__ = ["LostError", "Pool", "in_order"]

log = logging.getLogger("optiprune")
H = TypeVar("H")
# results that wait for an earlier one, for each task that may be under way
_HELD = 4


class LostError(Exception):
    """The worker is gone, and the task's result with it; the message says how."""


class Pool(Protocol[H]):
    """A place that tasks are handed out to."""

    def submit(self, task: Task) -> H:
        """A handle of the task, which waits or runs from now on."""

    def wait(self, handles: Sequence[H]) -> H:
        """One that has ended."""

    def result(self, handle: H) -> Any:
        """Of one that has ended. Raises what the task raised, or `LostError`."""

    def cancel(self, handles: Sequence[H]) -> None:
        """Their results are not wanted."""


@dataclass(slots=True, eq=False)
class _Entry(Generic[H]):
    task: Task
    handle: H | None
    losses: int = 0
    value: Any = None
    error: BaseException | None = None


def in_order(
    pool: Pool[H], tasks: Iterable[Task], most: int, retries: int, repeated: list[str]
) -> Iterator[Any]:
    """Results of the tasks.

    Parameters
    ----------
    most : tasks handed out and not ended; results that wait for an earlier one are held up to four
        times as many
    retries : how often a task is handed out again
    repeated : gets the names of those that were
    """
    source = iter(tasks)
    entries: deque[_Entry[H]] = deque()
    more = True
    try:
        while True:
            running = [e for e in entries if e.handle is not None]
            while more and len(running) < most and len(entries) < _HELD * most:
                task = next(source, None)
                if task is None:
                    more = False
                    break
                entry = _Entry(task, pool.submit(task))
                entries.append(entry)
                running.append(entry)
            if not entries:
                return
            first = entries[0]
            if first.handle is None:
                entries.popleft()
                if first.error is not None:
                    raise first.error
                yield first.value
                continue
            _settle_one(pool, running, retries, repeated)
    finally:
        pool.cancel([e.handle for e in entries if e.handle is not None])


def _settle_one(
    pool: Pool[H], running: Sequence[_Entry[H]], retries: int, repeated: list[str]
) -> None:
    """Wait for one of them; its result, its error, or another try."""
    by_handle = {e.handle: e for e in running if e.handle is not None}
    entry = by_handle[pool.wait(list(by_handle))]
    handle = entry.handle
    assert handle is not None
    try:
        entry.value = pool.result(handle)
    except LostError as e:
        entry.losses += 1
        if entry.losses > retries:
            entry.handle = None
            entry.error = WorkerLostError(
                f"{entry.task.name} lost its worker {entry.losses} times (executor.retries = "
                f"{retries}): {e}"
            )
            return
        log.warning("%s is done again, its worker was lost: %s", entry.task.name, e)
        repeated.append(entry.task.name)
        entry.handle = pool.submit(entry.task)
        return
    except Exception as e:
        entry.error = e
    entry.handle = None
