"""One solve after another, or in threads, such that Ctrl-C ends all of them with what they have."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from .result import Solution

__all__ = ["in_parts", "solve_each"]

# problems solved in one call at most, between two looks at Ctrl-C
_PART = 16


def in_parts(keys: Sequence[Hashable]) -> list[list[int]]:
    """Indices of problems that are solved in one call: those of one key; None stays alone."""
    parts: list[list[int]] = []
    unfilled: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        part = None if key is None else unfilled.get(key)
        if part is None or len(part) == _PART:
            part = []
            parts.append(part)
            if key is not None:
                unfilled[key] = part
        part.append(i)
    return parts


def solve_each(
    solve: Callable[[int], list[Solution]], count: int, workers: int, interrupt: threading.Event
) -> list[list[Solution]]:
    """``[solve(0), ..., solve(count - 1)]`` in ``workers`` threads.

    Ctrl-C sets ``interrupt``, at which every ``solve`` must come to its end, at once where it has
    not begun; a second one is raised. The first error is raised, and no further solve begun.
    """
    if workers == 1 or count < 2:
        return [_alone(solve, i, interrupt) for i in range(count)]
    answers: dict[int, list[Solution]] = {}
    todo = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        # every thread takes the next index: a future for each problem costs more than some solves
        while True:
            with lock:
                i = next(todo, None)
            if i is None:
                return
            try:
                answers[i] = solve(i)
            except BaseException:
                with lock:
                    deque(todo, maxlen=0)
                raise

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work) for _ in range(min(workers, count))]
        try:
            _wait(futures, interrupt)
            for f in futures:
                f.result()
        except BaseException:
            interrupt.set()
            with lock:
                deque(todo, maxlen=0)
            raise
    return [answers[i] for i in range(count)]


def _alone(
    solve: Callable[[int], list[Solution]], i: int, interrupt: threading.Event
) -> list[Solution]:
    """One solve in the main thread, which may see the signal itself and answer with what it has."""
    try:
        found = solve(i)
    except KeyboardInterrupt:
        if interrupt.is_set():
            raise
        interrupt.set()
        return solve(i)
    if any(s.stats.stop_reason == "interrupted" for s in found):
        interrupt.set()
    return found


def _wait(futures: list[Future[None]], interrupt: threading.Event) -> None:
    """Until all are done or one has failed."""
    pending = set(futures)
    while pending:
        try:
            # in short turns: Windows delivers no signal to a thread that waits on a lock
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        except KeyboardInterrupt:
            if interrupt.is_set():
                raise
            interrupt.set()
            continue
        if any(f.exception() is not None for f in done):
            return
