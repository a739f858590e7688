"""The process that solves: a crash, a leak or a solver that never ends costs one measurement."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import Instance
from optiprune.problems import Problem

from .measure import measure, warm_up
from .spec import SolverSpec

__all__ = ["InProcess", "Measurer", "Worker"]

# libraries that read these make threads, whose CPU time would be counted all the same
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
_START_S = 120


class Measurer(Protocol):
    """Whatever can take a measurement."""

    def measure(self, instance: Instance, spec: SolverSpec, **how: Any) -> dict[str, Any]: ...

    def close(self) -> None: ...


class InProcess:
    """Measure in this process: for solvers that were registered at run time, and for tests."""

    def __init__(self) -> None:
        self._loaded: tuple[str, Problem] | None = None
        self._warm: set[tuple[str, str, int]] = set()

    def measure(self, instance: Instance, spec: SolverSpec, **how: Any) -> dict[str, Any]:
        """As `optiprune.bench.protocol.measure.measure`, after a warm-up where one is needed."""
        if self._loaded is None or self._loaded[0] != instance.sha256:
            self._loaded = instance.sha256, instance.load()
        problem = self._loaded[1]
        # another size may take another kernel, which would be loaded within the measured time
        like = (spec.key, instance.kind, instance.n)
        if like not in self._warm:
            self._warm.add(like)
            warm_up(problem, spec)
        return measure(problem, spec, **how)

    def close(self) -> None:
        self._loaded = None


class Worker:
    """Measure in a process of its own, which is started again when it dies.

    Parameters
    ----------
    patience : seconds of wall-clock time that a measurement may take beside ten times its budget
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._process: Any = None
        self._pipe: Connection | None = None
        self._busy = False

    def measure(self, instance: Instance, spec: SolverSpec, **how: Any) -> dict[str, Any]:
        """As `InProcess.measure`; ``status`` is "error" if the process died or was ended."""
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        limit = 10 * how["budget"] + self._patience
        self._busy = True
        try:
            self._pipe.send((instance, spec, how))
            if not self._pipe.poll(limit):
                self.close()
                return _lost(f"no answer within {limit:g} s; its process was ended")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.close()
            return _lost(f"the solver's process died with exit code {code}")
        except BaseException:  # Ctrl-C: the measurement is lost, the process must not go on
            self.close()
            raise
        self._busy = False
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        """End the process; one that waits for work ends by itself, another is killed."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            if not self._busy:
                self._process.join(5)
            self._process.kill()
            self._process.join()
            self._process = None
        self._busy = False

    def _start(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="optiprune-bench")
        with _environment(_ONE_THREAD):
            self._process.start()
        theirs.close()
        # its imports are not the solver's time
        if not self._pipe.poll(_START_S):
            self.close()
            raise BenchError(f"the process that solves did not start within {_START_S} s")
        with contextlib.suppress(EOFError, OSError):  # found out by the measurement
            self._pipe.recv()


def _lost(why: str) -> dict[str, Any]:
    return {"status": "error", "message": why}


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del os.environ[name]


def _serve(pipe: Connection) -> None:
    """Answer until the other side is gone. Ctrl-C is its business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inside = InProcess()
    pipe.send("ready")
    while True:
        try:
            instance, spec, how = pipe.recv()
        except (EOFError, OSError):
            return
        answer: dict[str, Any] | Exception
        try:
            answer = inside.measure(instance, spec, **how)
        except Exception as e:  # the instance, not the solver: for the one who asked
            answer = BenchError(f"instance {instance.name!r}: {type(e).__name__}: {e}")
        pipe.send(answer)
