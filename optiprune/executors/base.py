"""What an executor is: a place that does tasks and gives their results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Executor", "ExecutorError", "Shared", "Task", "WorkerLostError"]


class ExecutorError(RuntimeError):
    """Tasks cannot be done where the config says; the message says what to change."""


class WorkerLostError(ExecutorError):
    """A task lost its worker more often than it is tried again, or no worker is left."""


class Shared:
    """A large value that several tasks read; it is sent once.

    Arrays of NumPy inside are not copied on the way to a worker of the same machine, and read-only
    there. `take` hands the value over to the executor, so that it is not held twice.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: object) -> None:
        self._value = value

    def take(self) -> object:
        value, self._value = self._value, None
        if value is None:
            raise ValueError("this value was handed over to an executor already")
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """``function(*args, *values of shared)``, in whatever process.

    The outcome may depend on nothing else, since a task whose worker is lost is done again.

    Attributes
    ----------
    name : for messages
    args : small; pickled by cloudpickle, so that classes of a user's script can be among them
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    shared: tuple[Shared, ...] = ()


class Executor(Protocol):
    """Does tasks side by side.

    Attributes
    ----------
    repeated : names of the tasks that were begun again, once for each time
    """

    repeated: list[str]

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Results in the order of the tasks; the next task is asked for when there is room for it.

        What a task raises is raised at its place, and ends the rest.

        Raises
        ------
        WorkerLostError
        """

    def everywhere(self, task: Task) -> None:
        """Do it on every worker, or on every node that has workers; raises what it raises."""

    def close(self) -> None:
        """End what was begun; what is under way is lost."""
