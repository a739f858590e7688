"""One batch after another, or in threads, such that Ctrl-C ends all of them with what they have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["run_all", "stop_all"]

T = TypeVar("T")


def stop_all(interrupt: threading.Event) -> None:
    """What to do about a KeyboardInterrupt that was caught: raise it again if it is the second."""
    if interrupt.is_set():
        raise KeyboardInterrupt
    interrupt.set()


def run_all(
    run: Callable[[T], None], parts: Sequence[T], workers: int, interrupt: threading.Event
) -> None:
    """``run(part)`` for every part, in ``workers`` threads.

    ``run`` looks at ``interrupt`` by itself and, in the main thread, sets it at Ctrl-C; in threads
    this does so. A second Ctrl-C is raised, and so is the first error; no part is begun after it.
    """
    if workers == 1 or len(parts) < 2:
        for part in parts:
            run(part)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(run, part) for part in parts}
        try:
            while pending:
                try:
                    # in short turns: Windows delivers no signal to a thread that waits on a lock
                    done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                except KeyboardInterrupt:
                    stop_all(interrupt)
                    continue
                for future in done:
                    future.result()
        except BaseException:
            interrupt.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
