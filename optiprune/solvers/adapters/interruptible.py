"""Run a call that does not return to Python for long, so that Ctrl-C reaches it all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from optiprune.solvers.base import Watch

__all__ = ["run_interruptible"]

_T = TypeVar("_T")


def run_interruptible(
    work: Callable[[], _T], cancel: Callable[[], None], watch: Watch | None = None
) -> tuple[_T, bool]:
    """``(work(), whether the user interrupted it)``, with ``work`` in a thread of its own.

    On Ctrl-C, here or where ``watch`` learns of it, ``cancel()`` must make ``work`` come to its
    end; a second Ctrl-C is raised. Errors of ``work`` are raised here.
    """
    done = threading.Event()
    answers: list[_T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            answers.append(work())
        except BaseException as e:
            failures.append(e)
        finally:
            done.set()

    # a daemon, so that a second Ctrl-C can end the process although nobody has listened yet
    threading.Thread(target=body, name="optiprune-backend", daemon=True).start()
    interrupted = False
    while not done.is_set():
        try:
            done.wait(0.1)
            if watch is not None and watch.interrupted and not interrupted:
                interrupted = True
                cancel()
        except KeyboardInterrupt:
            cancel()
            if interrupted:
                raise
            interrupted = True
    if failures:
        raise failures[0]
    return answers[0], interrupted
