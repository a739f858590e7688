"""An executor from its options."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from optiprune.config import ExecutorOptions

from .base import Executor, ExecutorError

__all__ = ["open_executor", "require_executor"]


def require_executor(options: ExecutorOptions) -> None:
    """Raise `ExecutorError` where the package that it needs is not installed."""
    if options.kind == "ray" and importlib.util.find_spec("ray") is None:
        raise ExecutorError(
            "executor = 'ray' needs Ray, which is not installed: pip install 'optiprune[ray]'; "
            "'processes' needs nothing more, on one machine"
        )


@contextmanager
def open_executor(options: ExecutorOptions, workers: int, threads: int) -> Iterator[Executor]:
    """The executor, closed at the end.

    Parameters
    ----------
    options : of another kind than 'local'
    workers : tasks at a time
    threads : of a task

    Raises
    ------
    ExecutorError
        Ray is not installed, or its cluster is not there or lacks what a task needs.
    """
    require_executor(options)
    executor: Executor
    if options.kind == "ray":
        from .on_ray import RayExecutor

        executor = RayExecutor(workers, threads, options)
    else:
        from .processes import ProcessExecutor

        executor = ProcessExecutor(workers, options)
    try:
        yield executor
    finally:
        executor.close()
