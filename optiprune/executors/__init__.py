"""Where independent tasks run: in processes of this machine, or on a Ray cluster."""

from .base import Executor, ExecutorError, Shared, Task, WorkerLostError
from .opening import open_executor, require_executor

__all__ = [
    "Executor",
    "ExecutorError",
    "Shared",
    "Task",
    "WorkerLostError",
    "open_executor",
    "require_executor",
]
