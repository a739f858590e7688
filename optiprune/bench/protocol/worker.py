"""The process that solves: a crash, a leak or a solver that never ends costs one measurement."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import Instance
from optiprune.bench.instances.instance import rounding
from optiprune.problems import Problem

from .measure import measure
from .spec import SolverSpec
from .warming import warm_up

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
        self._loaded: tuple[str, Problem, float] | None = None
        self._warm: set[tuple[str, str, int]] = set()

    def measure(self, instance: Instance, spec: SolverSpec, **how: Any) -> dict[str, Any]:
        """As `optiprune.bench.protocol.measure.measure`, after a warm-up where one is needed, and
        with the problem's ``rounding``, below which differences of energies say nothing."""
        if self._loaded is None or self._loaded[0] != instance.sha256:
            problem = instance.load()
            self._loaded = instance.sha256, problem, rounding(problem)
        _, problem, rounded = self._loaded
        # another size may take another kernel, which would be loaded within the measured time
        like = (spec.key, instance.kind, instance.n)
        if like not in self._warm:
            self._warm.add(like)
            warm_up(problem, spec)
        return {**measure(problem, spec, **how), "rounding": rounded}

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
        began = time.perf_counter()
        self._busy = True
        try:
            self._pipe.send((instance, spec, how))
            if not self._pipe.poll(limit):
                self.close()
                words = f"no answer within {limit:g} s; its process was ended"
                return _lost(words, began, how["budget"])
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.close()
            words = f"the solver's process died with exit code {code}"
            return _lost(words, began, how["budget"])
        except BaseException:  # Ctrl-C: the measurement is lost, the process must not go on
            self.close()
            raise
        self._busy = False
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        """End the process and all that it has started.

        One that waits for work ends by itself, another is killed; what a solver left behind goes
        with it where there are process groups.
        """
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            if not self._busy:
                self._process.join(5)
            if hasattr(os, "killpg"):
                # no such group: it died before it had made one, or nothing of it is left
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
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
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.close()
            raise BenchError(
                f"the process that solves ended before it began, with exit code {code}; a script "
                "that calls run_bench does so under `if __name__ == '__main__':`, since that "
                "process imports it, or passes isolate=False"
            ) from None


def _lost(why: str, began: float, budget: float) -> dict[str, Any]:
    """The record of a process that took its clock along: a failure is no cheaper than a run."""
    wall = time.perf_counter() - began
    spent = {"cpu_s": round(max(wall, budget), 6), "wall_s": round(wall, 6)}
    return {"status": "error", "message": why, **spent}


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
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, so that what a solver starts can be ended with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
        try:
            pipe.send(answer)
        except OSError:  # killed in the meantime
            return


def _end_with_parent() -> None:
    """A bench that was killed leaves no solver behind, however long that would have gone on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
