"""What a worker process does with a task, and how a task is written for it."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from typing import Any

import cloudpickle

from .base import ExecutorError, Task

__all__ = ["packed", "perform"]


def packed(task: Task) -> bytes:
    """Function and arguments, for `perform`.

    Raises
    ------
    ExecutorError
        Something among them cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps((task.function, task.args)))
    except Exception as e:
        raise ExecutorError(
            f"{task.name} cannot be sent to another process: {type(e).__name__}: {e}; a solver or "
            "stop of your own must be picklable (no open files, locks or lambdas from C), or use "
            "executor = 'local'"
        ) from e


def perform(path: Sequence[str], payload: bytes, *shared: Any) -> Any:
    """The outcome of a task.

    ``path`` is ``sys.path`` of the process that sent it: modules of a user's folder are found in
    the same place where the folder is there too.
    """
    sys.path.extend(p for p in path if p not in sys.path and os.path.isdir(p))
    try:
        function, args = pickle.loads(payload)
    except ImportError as e:
        raise ExecutorError(
            f"a worker cannot import what a task needs ({e}); install it on every node, or put its "
            "folder into PYTHONPATH where the workers are started"
        ) from e
    return function(*args, *shared)
