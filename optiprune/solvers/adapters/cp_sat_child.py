"""The process that holds CP-SAT. It is run as a script and imports nothing of this package.

Messages are pickles, in both directions. In: ``("solve", number, task)`` and ``("stop", number)``.
Out: ``("ready",)`` or ``("missing", words)`` once; of a solve ``("found", number, x)`` for each
incumbent, then ``("done", number, answer)`` or ``("refused", number, words)``. It ends when its
input does, in the middle of a solve too.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO


class _Stops:
    """Solves that the other side wants ended; a request may come before its solve has begun."""

    def __init__(self) -> None:
        self.asked: set[int] = set()
        self.event = threading.Event()


def _read(source: BinaryIO, tasks: queue.Queue[Any], stops: _Stops) -> None:
    while True:
        try:
            message = pickle.load(source)
        except Exception:  # the other side is gone
            os._exit(0)
        if message[0] == "stop":
            stops.asked.add(message[1])
            stops.event.set()
        else:
            tasks.put(message)


def _solve(cp_model: Any, send: Any, number: int, task: dict[str, Any], stops: _Stops) -> None:
    model = cp_model.CpModel()
    z = [model.new_bool_var("") for _ in range(len(task["c"]))]
    indptr, indices, data = (task[k].tolist() for k in ("indptr", "indices", "data"))
    lower, upper = task["lower"].tolist(), task["upper"].tolist()
    for r in range(len(lower)):
        at = slice(indptr[r], indptr[r + 1])
        row = cp_model.LinearExpr.weighted_sum([z[j] for j in indices[at]], data[at])
        model.add_linear_constraint(row, lower[r], upper[r])
    model.minimize(cp_model.LinearExpr.weighted_sum(z, task["c"].tolist()))
    if task["hint"] is not None:
        for variable, value in zip(z, task["hint"].tolist(), strict=True):
            model.add_hint(variable, value)
    solver = cp_model.CpSolver()
    for key, value in task["parameters"].items():
        try:
            if not hasattr(type(solver.parameters), key):
                raise AttributeError(f"CP-SAT has no parameter {key!r}")
            setattr(solver.parameters, key, value)
        except (AttributeError, TypeError, ValueError) as e:
            send(("refused", number, f"{key} = {value!r}: {e}"))
            return
    x = z[: task["n"]]

    class Incumbents(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
        def on_solution_callback(self) -> None:
            send(("found", number, [int(self.value(v)) for v in x]))

    done = threading.Event()

    def listen() -> None:
        while not done.is_set():
            stops.event.wait()
            stops.event.clear()  # before the look: one that comes meanwhile wakes it again
            while number in stops.asked and not done.is_set():
                solver.stop_search()  # does nothing before the search has begun: ask again
                done.wait(0.02)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        status = solver.solve(model, Incumbents())
    finally:
        done.set()
        stops.event.set()
        listener.join()
    name = solver.status_name(status)
    known = name in ("OPTIMAL", "FEASIBLE")
    answer = {
        "status": name,
        "x": [int(solver.value(v)) for v in x] if known else None,
        "bound": float(solver.best_objective_bound) if name != "MODEL_INVALID" else None,
        "branches": int(solver.num_branches),
        "conflicts": int(solver.num_conflicts),
        "words": model.validate() if name == "MODEL_INVALID" else "",
    }
    send(("done", number, answer))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other side's business
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what CP-SAT prints must not end up between the messages
    lock = threading.Lock()

    def send(message: tuple[Any, ...]) -> None:
        with lock:
            sink.write(pickle.dumps(message))
            sink.flush()

    try:
        from ortools.sat.python import cp_model
    except ImportError as e:
        send(("missing", str(e)))
        return
    tasks: queue.Queue[Any] = queue.Queue()
    stops = _Stops()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks, stops), daemon=True).start()
    send(("ready",))
    while True:
        _, number, task = tasks.get()
        try:
            _solve(cp_model, send, number, task, stops)
        except Exception as e:
            send(("refused", number, f"{type(e).__name__}: {e}"))


if __name__ == "__main__":
    main()
