"""Tasks on a Ray cluster.

Large values are put into the object store once, and nodes that need them fetch them from there. Ray
itself retries nothing: a task whose worker or node is lost is handed out again by `in_order`, which
counts.
"""

from __future__ import annotations

import os
import socket
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from optiprune.config import ExecutorOptions

from .base import ExecutorError, Shared, Task, WorkerLostError
from .ordered import LostError, in_order
from .worker import packed, perform

__all__ = ["RayExecutor"]

# seconds after which it is looked whether there is a node left that could do a task
_LOOK = 10.0


class RayExecutor:
    """About ``workers`` tasks at a time, each with ``cpus`` CPUs; see `Executor`.

    A connection to Ray that the program has already is used, and left as it is.

    Raises
    ------
    ExecutorError
        No cluster answers, or no node of it can do a task.
    """

    def __init__(self, workers: int, cpus: int, options: ExecutorOptions) -> None:
        self.repeated: list[str] = []
        self._most, self._options = workers + options.ahead, options
        self._needs = {"CPU": float(cpus), **options.resources}
        if options.gpus:
            self._needs["GPU"] = options.gpus
        self._own = not ray.is_initialized()
        if self._own:
            _connect(options.address, workers, self._needs)
        self._perform = ray.remote(
            max_retries=0,
            num_cpus=cpus,
            num_gpus=options.gpus,
            resources=dict(options.resources),
        )(perform)
        self._refs: weakref.WeakKeyDictionary[Shared, Any] = weakref.WeakKeyDictionary()
        try:
            self._able()
        except ExecutorError:
            self.close()
            raise

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        return in_order(self, tasks, self._most, self._options.retries, self.repeated)

    def everywhere(self, task: Task) -> None:
        payload = packed(task)
        refs = [
            self._perform.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(sys.path, payload)
            for node in self._able()
        ]
        for ref in refs:
            try:
                self.result(ref)
            except LostError as e:
                raise WorkerLostError(f"{task.name}: {e}") from e

    def close(self) -> None:
        self._refs.clear()
        if self._own:
            ray.shutdown()

    def submit(self, task: Task) -> Any:
        shared = [self._ref(value) for value in task.shared]
        named = self._perform.options(name=task.name)
        return named.remote(sys.path, packed(task), *shared)

    def wait(self, handles: Sequence[Any]) -> Any:
        while True:
            # what is fetched as soon as it is there cannot be lost with its node any more
            ended, _ = ray.wait(list(handles), num_returns=1, timeout=_LOOK)
            if ended:
                return ended[0]
            self._able()

    def result(self, handle: Any) -> Any:
        try:
            return ray.get(handle)
        except exceptions.RayTaskError as e:
            raise _cause(e) from None
        except exceptions.RayError as e:
            text = str(e).strip().splitlines() or [""]
            raise LostError(f"{type(e).__name__}: {text[0]}") from e

    def cancel(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            ray.cancel(handle, force=True)

    def _ref(self, shared: Shared) -> Any:
        """Of the value in the object store, which forgets it when no task needs it any more."""
        ref = self._refs.get(shared)
        if ref is None:
            ref = self._refs[shared] = ray.put(shared.take())
        return ref

    def _able(self) -> list[Mapping[str, Any]]:
        """The nodes that can do a task. Raises if there is none."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        able = [node for node in alive if _holds(node["Resources"], self._needs)]
        if able:
            return able
        there = "; ".join(_listed(_labels(node["Resources"])) for node in alive) or "none"
        message = (
            f"no node of the Ray cluster has what a task needs ({_listed(self._needs)}); the nodes "
            f"that are alive have: {there}"
        )
        if "GPU" in self._needs or self._options.resources:
            message += "; start a node with it: ray start --address=... --resources='{...}'"
        else:
            message += "; a task needs as many CPUs as `threads` says"
        raise WorkerLostError(message)


def _connect(address: str, workers: int, needs: Mapping[str, float]) -> None:
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of a run
        labels = {k: v * workers for k, v in needs.items() if k not in ("CPU", "GPU")}
        gpus = needs.get("GPU", 0.0)
        ray.init(
            address="local",
            num_cpus=int(needs["CPU"] * workers),
            num_gpus=None if gpus else 0,
            resources=labels,
            include_dashboard=False,
            log_to_driver=False,
        )
        return
    try:
        _answers(address)
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as e:
        raise ExecutorError(
            f"no Ray cluster at executor.address = '{address}': {e}; begin one with `ray start "
            "--head` (and `ray start --address=HOST:6379` on further machines), or set "
            "executor.address = 'local'"
        ) from e


def _answers(address: str) -> None:
    """Raise `OSError` where nothing listens: Ray itself would go on asking for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK).close()


def _cause(error: exceptions.RayTaskError) -> BaseException:
    """What the task raised."""
    cause = error.cause
    return cause if isinstance(cause, Exception) else error


def _holds(resources: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    return all(resources.get(k, 0.0) >= v for k, v in needs.items())


def _labels(resources: Mapping[str, float]) -> dict[str, float]:
    """Those that can be asked for; Ray has some of its own."""
    hidden = ("node:", "memory", "object_store_memory", "accelerator_type:")
    return {k: v for k, v in resources.items() if not k.startswith(hidden)}


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{v:g} {k}" for k, v in sorted(resources.items())) or "nothing"
